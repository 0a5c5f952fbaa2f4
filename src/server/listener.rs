//! Connections: taken in, served, and let go of in peace.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::app::App;
use super::chaos::Unanswered;
use super::request::Connection;

/// How long a connection may be silent between requests, and a request's head may take: longer than the longest
/// heartbeat timeout, so that every client that keeps its connection finds it open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(130);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer that does not answer any more is believed in.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests that are under way have to finish when the server stops.
const GRACE: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 32 * 1024;
/// Descriptors that are not for connections.
const RESERVED: u64 = 64;

/// Serves connections until `stop` comes to pass, then those requests that are under way.
pub(super) async fn serve(app: Arc<App>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(most_connections()));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: whoever waits gets its turn when others have gone.
                warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (app, watcher) = (Arc::clone(&app), graceful.watcher());
        tokio::spawn(async move {
            app.server.metrics.connections.inc();
            if let Err(error) = take_in(&app, stream, peer.ip(), watcher).await {
                debug!(peer = %peer, error = %error, "connection lost");
            }
            app.server.metrics.connections.dec();
            drop(slot);
        });
    }
    drop(listener);
    info!("stopping: finishing the requests under way");
    if timeout(GRACE, graceful.shutdown()).await.is_err() {
        warn!("some requests did not finish in time");
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

/// As many as there are descriptors for.
fn most_connections() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    usize::try_from(limit.saturating_sub(RESERVED).max(1)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

async fn take_in(
    app: &Arc<App>,
    stream: TcpStream,
    peer: IpAddr,
    watcher: hyper_util::server::graceful::Watcher,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(&stream, sockopt::KeepAlive, &true)?;
    // Also for a peer that is there, and reads nothing (tcp(7)).
    setsockopt(
        &stream,
        sockopt::TcpUserTimeout,
        &u32::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
    )?;
    setsockopt(&stream, sockopt::TcpKeepIdle, &u32::try_from(PEER_TIMEOUT.as_secs()).unwrap_or(u32::MAX))?;
    match app.server.tls() {
        None => speak(app, stream, Connection { peer, scheme: "http" }, watcher).await,
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(stream);
            let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
            speak(app, stream, Connection { peer, scheme: "https" }, watcher).await
        }
    }
}

async fn speak(
    app: &Arc<App>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    watcher: hyper_util::server::graceful::Watcher,
) -> io::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let app = Arc::clone(app);
        async move {
            let response: Result<Response<Body>, Unanswered> =
                app.answer(connection, request.map(Body::new)).await;
            response
        }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LONGEST_HEAD)
        // Whoever has said all it wanted to say may still want to hear the answer; but who is left hanging is not
        // told from who has gone then.
        .half_close(app.server.chaos.is_none())
        .serve_connection(TokioIo::new(stream), service);
    watcher.watch(http).await.map_err(io::Error::other)
}
