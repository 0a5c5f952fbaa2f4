//! `raxsr serve`: the command line of the server.

use std::io;
use std::net;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::PROGRAM;
use crate::logging::{self, Format, Level};
use crate::message::{Hint, complain};
use crate::registry::{self, Limits, RegistryUrl};
use crate::server::{
    self, Access, AccountLimits, Bound, ChaosSpec, ChaosSpecError, DEFAULT_LIMITS, Reloader, Settings,
    TlsFiles,
};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, next_help_heading = "Server")]
pub(super) struct Serve {
    /// Where to listen: IP address and port
    #[arg(long, env = "RAXSR_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8640")]
    listen: net::SocketAddr,

    /// Who may use it: a TOML file; without it, everybody on this machine
    ///
    /// `[[account]]` with `username`, `api_key` (or `api_key_sha256`, in hexadecimal), `tenant` (digits in quotes),
    /// and, if they are to differ from the defaults, `limits = { services = 200, configuration_values = 1000,
    /// requests_per_day = … }`. Each tenant has a registry of its own: beside registry.db, registry-7777.db.
    #[arg(long, env = "RAXSR_ACCOUNTS", value_name = "FILE")]
    accounts: Option<PathBuf>,

    /// The certificate to show, and those above it: a PEM file
    #[arg(long, env = "RAXSR_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key: a PEM file
    #[arg(long, env = "RAXSR_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Listen where others can reach it without --accounts, or without TLS
    #[arg(long, env = "RAXSR_INSECURE", value_parser = clap::builder::BoolishValueParser::new())]
    insecure: bool,

    /// How long a login lasts
    #[arg(long, env = "RAXSR_TOKEN_LIFETIME", value_name = "TIME", default_value = "24h", value_parser = lifetime)]
    token_lifetime: Duration,

    /// How many services a tenant may have that has no limits of its own
    #[arg(long, env = "RAXSR_MAX_SERVICES", value_name = "COUNT", default_value = "200")]
    max_services: u64,

    /// How many configuration values it may have
    #[arg(long, env = "RAXSR_MAX_CONFIGURATION_VALUES", value_name = "COUNT", default_value = "1000")]
    max_configuration_values: u64,

    /// Fail on purpose, to rehearse what clients do then: see below
    #[arg(long, env = "RAXSR_CHAOS", value_name = "SPEC", help_heading = "Rehearsal")]
    chaos: Vec<String>,

    /// How much to tell on standard error; every request at `debug`
    #[arg(long, env = "RAXSR_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: Level,

    /// In which form to tell it
    #[arg(long, env = "RAXSR_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

const AFTER_HELP: &str = "\
Pages:
  /v1.0[/<tenant>]/...   the Service Registry API: services, configuration, events, limits
  /v2.0/tokens           logins
  /http_sd[?tag=TAG]     service discovery for Prometheus: each service's address and port metadata
  /metrics, /health      of the server itself

Rehearsal, --chaos KIND[=ARGUMENT][:PERCENT%][@START[+LENGTH][/EVERY]], repeated or with commas:
  fail[=STATUS]          refuse, with a status from 400 to 599 (default 503), and do nothing
  delay=TIME[..TIME]     do it later
  hang                   give no answer, until the client goes or the trouble is over
  lose                   do it, and close the connection without an answer
  forget                 take out the service that a heartbeat is for; forget@30s: all, at 30 s
  seed=NUMBER            have the same troubles again where the same requests come again
  --chaos fail:20%,delay=100ms..2s:50%   a fifth fails; half are late
  --chaos hang@30s+10s                   from 30 s after the server's start on, for 10 s
  --chaos fail=401@10s+5s/1m             likewise, each minute
  Delays add up; of the other rules, the first that strikes counts. Only the API is concerned
  (/v1.0, /v2.0, /http_sd). Its answers then have the header X-Chaos, and /metrics counts.

Signals:
  SIGTERM, SIGINT        finish what is under way, then end
  SIGHUP                 read --accounts, --tls-cert and --tls-key again";

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("--listen {address} can be reached from other machines, and there is no {missing}")]
    Exposed { address: net::SocketAddr, missing: &'static str },
    #[error("--chaos")]
    Chaos(#[from] ChaosSpecError),
    #[error(transparent)]
    Server(Box<server::Error>),
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

impl From<server::Error> for Error {
    fn from(error: server::Error) -> Self {
        Self::Server(Box::new(error))
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { .. } => Some(
                "give --accounts, --tls-cert and --tls-key, or --insecure if that network is to be trusted"
                    .to_owned(),
            ),
            Self::Chaos(error) => error.hint(),
            Self::Server(error) => error.hint(),
            Self::Signals(_) => None,
        }
    }
}

impl Error {
    /// Whether it is the command line that has to be changed, or a file that it names.
    pub(super) fn is_usage(&self) -> bool {
        use server::Error as Cause;
        match self {
            Self::Exposed { .. } | Self::Chaos(_) => true,
            Self::Server(cause) => {
                matches!(**cause, Cause::Accounts(_) | Cause::Tls(_) | Cause::OneTenant(_))
            }
            Self::Signals(_) => false,
        }
    }
}

pub(super) async fn run(
    serve: Serve,
    registry: RegistryUrl,
    registry_access: registry::Access,
) -> Result<(), Error> {
    logging::start(serve.log_level, serve.log_format);
    let settings = serve.settings(registry, registry_access)?;
    let registry = settings.registry.to_string();
    // Before anybody can know that we are there.
    let stop = stop_signal().map_err(Error::Signals)?;
    let hang_ups = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    let bound = Bound::new(settings).await?;
    complain(&format!("{PROGRAM}: serving {} from {registry}\n", bound.url()));
    tell_manager("READY=1");
    tokio::spawn(reload_at(hang_ups, bound.reloader()));
    bound.serve(stop).await;
    tell_manager("STOPPING=1");
    Ok(())
}

/// Tells systemd how we stand, where it wants to know (`sd_notify(3)`). That nobody hears is no reason to fail.
fn tell_manager(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&name),
    };
    let _ = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
}

impl Serve {
    fn settings(self, registry: RegistryUrl, registry_access: registry::Access) -> Result<Settings, Error> {
        let chaos = Some(self.chaos.join(",")).filter(|spec| !spec.is_empty());
        let chaos = chaos.map(|spec| spec.parse::<ChaosSpec>()).transpose()?;
        let tls = self.tls_cert.zip(self.tls_key);
        let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
        if !self.listen.ip().is_loopback() && !self.insecure {
            let missing = match (&self.accounts, &tls) {
                (None, _) => Some("--accounts"),
                (_, None) => Some("--tls-cert"),
                _ => None,
            };
            if let Some(missing) = missing {
                return Err(Error::Exposed { address: self.listen, missing });
            }
        }
        let limits = AccountLimits {
            resources: Limits {
                services: Some(self.max_services),
                configuration_values: Some(self.max_configuration_values),
            },
            ..DEFAULT_LIMITS
        };
        Ok(Settings {
            listen: self.listen,
            registry,
            registry_access,
            access: self.accounts.map_or(Access::Open, Access::Accounts),
            limits,
            tls,
            token_lifetime: self.token_lifetime,
            chaos,
        })
    }
}

/// Comes to pass when we are asked to end.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!(signal = "SIGTERM", "asked to end"),
            _ = interrupt.recv() => info!(signal = "SIGINT", "asked to end"),
        }
    })
}

async fn reload_at(mut hang_ups: Signal, reloader: Reloader) {
    while hang_ups.recv().await.is_some() {
        reloader.reload().await;
    }
}

/// From a second on.
fn lifetime(text: &str) -> Result<Duration, String> {
    let span = crate::command_line::span(text).map_err(|error| error.to_string())?;
    if span < Duration::from_secs(1) {
        return Err("a login lasts for a second at least".to_owned());
    }
    Ok(span)
}
