//! Whether a connection is accepted.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::net::TcpStream;

use super::Reason;

pub(in crate::wrapper) struct Probe {
    host: Option<String>,
    port: u16,
}

impl Probe {
    pub(super) fn new(host: Option<String>, port: u16) -> Self {
        Self { host, port }
    }

    pub(super) async fn look(&self) -> Result<(), Reason> {
        let port = self.port;
        let refused = |error: io::Error| Reason::new(format!("cannot connect to port {port}: {error}"));
        match &self.host {
            Some(host) => TcpStream::connect((host.as_str(), port)).await.map(drop).map_err(refused),
            None => match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(_) => Ok(()),
                Err(error) => {
                    let other = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await;
                    other.map(drop).map_err(|_| refused(error))
                }
            },
        }
    }
}
