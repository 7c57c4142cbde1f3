//! A client of a proxy's pages: HTTP/1.1 and HTTP/2 over verified TLS, a connection for each request.

use super::PATIENCE;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::{HeaderMap, Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use postern::net::socket;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.to_str().expect("text")
    }
}

/// Somebody on this machine who trusts a cluster.
#[derive(Debug, Clone)]
pub struct Https {
    port: u16,
    from: Ipv4Addr,
    version: Version,
    roots: Arc<RootCertStore>,
}

impl Https {
    /// Trusts the authorities of a PEM file.
    pub fn new(authorities: &Path, port: u16) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authorities).expect("PEM") {
            roots.add(certificate.expect("PEM")).expect("a certificate");
        }
        Self {
            port,
            from: Ipv4Addr::LOCALHOST,
            version: Version::HTTP_11,
            roots: Arc::new(roots),
        }
    }

    pub fn at(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// From another address of this machine.
    pub fn from(&self, from: Ipv4Addr) -> Self {
        Self { from, ..self.clone() }
    }

    pub fn over(&self, version: Version) -> Self {
        Self {
            version,
            ..self.clone()
        }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], String::new())
    }

    #[track_caller]
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.ask(Method::POST, path, &[], form(fields))
    }

    #[track_caller]
    pub fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = match self.version {
            Version::HTTP_2 => Request::builder().uri(format!("https://localhost:{}{path}", self.port)),
            _ => Request::builder()
                .uri(path)
                .header(HOST, format!("localhost:{}", self.port)),
        };
        if method == Method::POST {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .method(method)
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        runtime().block_on(async {
            let asked = tokio::time::timeout(PATIENCE, self.exchange(request));
            asked
                .await
                .expect("an answer in time")
                .unwrap_or_else(|error| panic!("{error}"))
        })
    }

    /// The certificate that the port presents, leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let tls = runtime().block_on(self.connect(&[b"http/1.1"])).expect("TLS");
        tls.get_ref().1.peer_certificates().expect("a chain").to_vec()
    }

    /// What the port settles on of several application protocols.
    pub fn settled(&self, offered: &[&[u8]]) -> Option<Vec<u8>> {
        let tls = runtime().block_on(self.connect(offered)).expect("TLS");
        tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// Sends these bytes in HTTP/1.1 and reads up to the end of the connection.
    pub fn raw(&self, bytes: &[u8]) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        runtime().block_on(async {
            let mut tls = self.connect(&[]).await.expect("TLS");
            // The proxy may cut it before it has read everything.
            let _cut = tls.write_all(bytes).await;
            let mut said = Vec::new();
            let read = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut said));
            // A connection that is cut has no close_notify.
            let _cut = read.await.expect("the proxy ends the connection in time");
            String::from_utf8_lossy(&said).into_owned()
        })
    }

    async fn connect(&self, offered: &[&[u8]]) -> std::io::Result<TlsStream<socket::Tcp>> {
        let raw = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        raw.bind(&SocketAddr::from((self.from, 0)).into())?;
        raw.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).into())?;
        raw.set_nonblocking(true)?;
        let tcp = socket::adopt(TcpStream::from(raw))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Box<dyn std::error::Error>> {
        let answer = if self.version == Version::HTTP_2 {
            let io = TokioIo::new(self.connect(&[b"h2", b"http/1.1"]).await?);
            let (mut sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(driver);
            sender.send_request(request).await?
        } else {
            let io = TokioIo::new(self.connect(&[b"http/1.1"]).await?);
            let (mut sender, driver) = http1::handshake(io).await?;
            tokio::spawn(driver);
            sender.send_request(request).await?
        };
        let (head, body) = answer.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            version: head.version,
            headers: head.headers,
            body: String::from_utf8(body.collect().await?.to_bytes().to_vec())?,
        })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The fields as a browser sends them.
pub fn form(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        let escaped = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        text.bytes().map(escaped).collect()
    };
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", escape(value)));
    fields.collect::<Vec<_>>().join("&")
}
