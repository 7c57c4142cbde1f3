//! TCP and Unix sockets: the one file that names `tokio::net`.
#![expect(clippy::disallowed_types, reason = "this is the one place for sockets")]

use super::names::NAMES;
use crate::model::endpoint::is_link_local;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::OnceCell;

pub type Tcp = TcpStream;
pub type Unix = UnixStream;

/// Connections that the kernel completes before we take them; a burst of clients must not see refusals.
const BACKLOG: i32 = 4096;
/// A dial that is not answered in this time goes to the next address.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that stay unacknowledged so long mean that the peer is gone, whatever TCP still hopes.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// What the kernel takes of a tunnel beyond what is under way (TCP_NOTSENT_LOWAT). Over 30 ms and 100 Mbit/s, statements beside a
/// COPY wait 2.5 MB without it: 140 ms, of which 16 KiB leave 57. Less costs the COPY, which is then held up by our wake-ups.
const TUNNEL_NOT_SENT_BYTES: u32 = 32 * 1024;
/// Keep-alive probes on connections that may be silent for hours.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// Registered where the first connection is awaited, so that no other thread is woken for those that come.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    registered: OnceCell<TcpListener>,
}

impl Listener {
    /// Binds and listens. The error names the address and, where it is taken, what to do.
    pub fn bind(address: SocketAddr, what: &str) -> Result<Self, String> {
        Self::bind_inner(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "the {what} service cannot listen on {address}: the port is taken by another program; \
                 choose another port, or see who has it with: ss -ltnp 'sport = :{}'",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => format!(
                "the {what} service cannot listen on {address}: ports below 1024 need root or CAP_NET_BIND_SERVICE"
            ),
            _ => format!("the {what} service cannot listen on {address}: {error}"),
        })
    }

    fn bind_inner(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket: socket.into(),
            registered: OnceCell::new(),
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection, as the standard library's socket: it is registered with the runtime that will serve it.
    pub async fn accept(&self) -> io::Result<(std::net::TcpStream, SocketAddr)> {
        let register = async || TcpListener::from_std(self.socket.try_clone()?);
        let (stream, peer) = self.registered.get_or_try_init(register).await?.accept().await?;
        Ok((stream.into_std()?, peer))
    }
}

/// Registers an accepted socket with the runtime that the caller is on.
pub fn adopt(stream: std::net::TcpStream) -> io::Result<Tcp> {
    let stream = TcpStream::from_std(stream)?;
    tune(&stream)?;
    Ok(stream)
}

/// Connects to `host:port`, trying each address that the name has, but none that is link-local: whoever can change a name must
/// not lead a node to what answers on its machine's own link. One that is written out is meant.
pub async fn connect(host: &str, port: u16) -> io::Result<Tcp> {
    let bare = host.trim_matches(['[', ']']);
    let written_out = bare.parse::<IpAddr>().ok();
    let addresses = match written_out {
        Some(address) => Arc::from([SocketAddr::new(address, port)]),
        None => NAMES.resolve(bare, port, CONNECT_DEADLINE).await?,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("the name {host} has no address"));
    for &address in &*addresses {
        if is_link_local(address.ip()) && written_out.is_none() {
            let why = format!(
                "the name {host} leads to the link-local address {}, which is not followed",
                address.ip()
            );
            last = io::Error::new(io::ErrorKind::PermissionDenied, why);
            continue;
        }
        match tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => {
                last = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {CONNECT_DEADLINE:?}"),
                )
            }
        }
    }
    NAMES.forget(bare, port);
    Err(last)
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY),
    )
}

/// For the connections between nodes: notices a peer that takes no bytes any more.
pub fn set_user_timeout(stream: &Tcp) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// For a tunnel, on top: of what it carries, little waits in the kernel, where nobody can put a small statement before the bulk of
/// somebody else.
pub fn set_tunnel(stream: &Tcp) -> io::Result<()> {
    set_user_timeout(stream)?;
    SockRef::from(stream).set_tcp_notsent_lowat(TUNNEL_NOT_SENT_BYTES)
}

/// The longest address of a Unix socket, without the zero at its end: the kernel's own.
const UNIX_PATH_MAX: usize = 107;

/// A bound Unix socket that only its owner may open (0600). It is of no runtime yet.
#[derive(Debug)]
pub struct OwnersSocket(std::os::unix::net::UnixListener);

impl OwnersSocket {
    /// Binds anew: whoever holds the data directory's lock may remove what an earlier process left.
    pub fn bind(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let address = UnixAddress::of(path)?;
        let listener = std::os::unix::net::UnixListener::bind(&address.path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Listens with the runtime that the caller is on; again, when that runtime is gone.
    pub fn listen(&self) -> io::Result<OwnersListener> {
        UnixListener::from_std(self.0.try_clone()?).map(OwnersListener)
    }
}

#[derive(Debug)]
pub struct OwnersListener(UnixListener);

impl OwnersListener {
    /// The next connection and the uid of the process at its other end.
    pub async fn accept(&self) -> io::Result<(Unix, u32)> {
        let (stream, _) = self.0.accept().await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, uid))
    }
}

pub async fn connect_owners(path: &Path) -> io::Result<Unix> {
    let address = UnixAddress::of(path)?;
    UnixStream::connect(&address.path).await
}

/// A path as the address of a Unix socket. One that is too long for that is named through its directory, which has to be open
/// meanwhile.
struct UnixAddress {
    path: PathBuf,
    _directory: Option<File>,
}

impl UnixAddress {
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() <= UNIX_PATH_MAX {
            return Ok(Self {
                path: path.to_owned(),
                _directory: None,
            });
        }
        let directory = File::open(parent)?;
        Ok(Self {
            path: Path::new("/proc/self/fd")
                .join(directory.as_raw_fd().to_string())
                .join(name),
            _directory: Some(directory),
        })
    }
}

/// The first byte that the peer sends, left in the socket; `None` when it closes without one.
pub async fn first_byte(stream: &Tcp) -> io::Result<Option<u8>> {
    let mut first = [0; 1];
    let count = peek(stream, &mut first).await?;
    Ok((count == 1).then_some(first[0]))
}

/// What has come, left in the socket; nothing where the peer has closed.
pub async fn peek(stream: &Tcp, into: &mut [u8]) -> io::Result<usize> {
    stream.peek(into).await
}

/// Sends as much as the socket takes without waiting, for a peer that is given up anyway.
pub fn write_at_once(stream: &Tcp, bytes: &[u8]) {
    let _not_taken = stream.try_write(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_into_a_tunnel_waits_here_and_not_in_the_kernel() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tunnel = connect("127.0.0.1", port).await.unwrap();
        set_tunnel(&tunnel).unwrap();
        let options = SockRef::from(&tunnel);
        assert_eq!(options.tcp_notsent_lowat().unwrap(), TUNNEL_NOT_SENT_BYTES);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_link_local_address_is_not_followed() {
        // Names to us, and addresses to the resolver, so that no network is needed.
        for name in ["2852039166", "0xa9fea9fe"] {
            let error = connect(name, 80).await.expect_err("link-local");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("169.254.169.254"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_socket_may_lie_deeper_than_its_address_is_long() {
        use std::os::unix::fs::MetadataExt as _;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("d".repeat(80)).join("e".repeat(80));
        std::fs::create_dir_all(&deep).expect("ours");
        for path in [directory.path().join("x.sock"), deep.join("x.sock")] {
            std::fs::write(&path, "of an earlier process").expect("ours");
            let listener = OwnersSocket::bind(&path)
                .and_then(|socket| socket.listen())
                .expect("bound");
            assert_eq!(path.symlink_metadata().expect("there").mode() & 0o777, 0o600);
            let (dialled, accepted) = tokio::join!(connect_owners(&path), listener.accept());
            let (mut accepted, uid) = accepted.expect("accepted");
            assert_eq!(uid, nix::unistd::geteuid().as_raw());
            accepted.write_all(b"x").await.expect("sent");
            assert_eq!(dialled.expect("connected").read_u8().await.expect("read"), b'x');
        }
    }
}
