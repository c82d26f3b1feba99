//! The listening socket: made here, or handed over by systemd (sd_listen_fds(3)).

use std::net::SocketAddr;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use tokio::net::TcpListener;

use super::DaemonError;
use crate::config::Listen;

/// Where the socket will come from, settled before anything else is done.
pub(super) enum Source {
    /// It is made once the daemon can answer.
    Address(SocketAddr),
    /// systemd made it; whoever calls waits meanwhile.
    Inherited(std::net::TcpListener),
}

impl Source {
    /// Takes over systemd's socket where the configuration says so. No other thread may run yet, since systemd's variables are
    /// taken out of the environment.
    ///
    /// # Errors
    /// systemd has not handed over exactly one listening TCP socket.
    pub(super) fn settle(listen: Listen) -> Result<Self, DaemonError> {
        match listen {
            Listen::Address(address) => Ok(Self::Address(address)),
            Listen::Systemd => inherited(ListenFd::from_env()).map(Self::Inherited),
        }
    }

    /// The socket.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub(super) async fn open(self) -> Result<TcpListener, DaemonError> {
        match self {
            Self::Address(address) => {
                TcpListener::bind(address).await.map_err(|source| DaemonError::Listen { address, source })
            }
            Self::Inherited(listener) => {
                listener.set_nonblocking(true)?;
                Ok(TcpListener::from_std(listener)?)
            }
        }
    }
}

fn inherited(mut sockets: ListenFd) -> Result<std::net::TcpListener, DaemonError> {
    if sockets.len() != 1 {
        return Err(DaemonError::Socket(format!("it has handed over {} sockets, not one", sockets.len())));
    }
    let taken = sockets.take_tcp_listener(0).map_err(|error| DaemonError::Socket(error.to_string()))?;
    let listener = taken.ok_or_else(|| DaemonError::Socket("its socket was taken already".into()))?;
    match socket_acceptconn(&listener) {
        Ok(true) => Ok(listener),
        Ok(false) => Err(DaemonError::Socket("its socket does not listen".into())),
        Err(errno) => Err(DaemonError::Socket(format!("its socket cannot be asked whether it listens: {errno}"))),
    }
}
