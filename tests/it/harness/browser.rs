//! A real browser: Debian's Chromium without a screen, told what to do over the WebDriver protocol (W3C) by a client of a few lines.

use super::process::{Process, TestDir};
use super::{PATIENCE, until};
use data_encoding::{BASE64, HEXLOWER};
use postern::pki::CaPin;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

const CHROMIUM: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";
/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Whether pages run scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scripts {
    On,
    Off,
}

/// Why there can be no browser here.
pub fn impediment() -> Option<String> {
    let missing = [CHROMIUM, DRIVER]
        .into_iter()
        .find(|program| !Path::new(program).exists())?;
    Some(format!(
        "the program {missing} is not there (apt-get install chromium chromium-driver)"
    ))
}

/// One window of a browser with a profile of its own.
pub struct Browser {
    port: u16,
    session: String,
    _driver: Process,
    _directory: TestDir,
}

impl Browser {
    /// A browser that takes this certificate for good, and no other that it does not know.
    #[track_caller]
    pub fn start(certificate: &CertificateDer<'_>, scripts: Scripts) -> Self {
        let directory = TestDir::new();
        let mut command = Command::new(DRIVER);
        super::clean_environment(&mut command, directory.path());
        command.arg("--port=0").env("TMPDIR", directory.path());
        let driver = Process::start("chromedriver", command, directory.join("chromedriver.log"));
        let port = until("chromedriver listens", PATIENCE, || {
            let log = driver.log_text();
            let (_, from) = log.split_once("started successfully on port ")?;
            from.split(['.', '\n']).next()?.trim().parse().ok()
        });
        let mut browser = Self {
            port,
            session: String::new(),
            _driver: driver,
            _directory: directory,
        };
        let options = browser.options(certificate, scripts);
        let session = browser.ask("POST", "/session", &options);
        session["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut browser.session);
        browser
    }

    fn options(&self, certificate: &CertificateDer<'_>, scripts: Scripts) -> Value {
        let pin = CaPin::of(certificate).expect("a certificate").to_string();
        let digest = HEXLOWER
            .decode(pin.trim_start_matches("sha256:").as_bytes())
            .expect("hexadecimal");
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--user-data-dir={}", self._directory.join("profile").display()),
            format!("--ignore-certificate-errors-spki-list={}", BASE64.encode(&digest)),
        ];
        if nix::unistd::geteuid().is_root() {
            // Chromium does not run as root otherwise.
            arguments.push("--no-sandbox".to_owned());
        }
        let blocked = json!({ "profile.managed_default_content_settings.javascript": 2 });
        let settings = if scripts == Scripts::Off { blocked } else { json!({}) };
        let chrome = json!({ "binary": CHROMIUM, "args": arguments, "prefs": settings });
        json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": chrome } } })
    }

    #[track_caller]
    pub fn open(&self, address: &str) {
        self.tell("/url", &json!({ "url": address }));
    }

    /// The text of an element, as a person sees it.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let path = format!("/element/{}/text", self.element(selector));
        self.of_session("GET", &path, &Value::Null)
            .as_str()
            .expect("text")
            .to_owned()
    }

    /// Width and height of an element.
    #[track_caller]
    pub fn size(&self, selector: &str) -> (f64, f64) {
        let path = format!("/element/{}/rect", self.element(selector));
        let rect = self.of_session("GET", &path, &Value::Null);
        let number = |name: &str| rect[name].as_f64().expect("a number");
        (number("width"), number("height"))
    }

    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        let path = format!("/element/{}/value", self.element(selector));
        self.tell(&path, &json!({ "text": text }));
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.tell(&format!("/element/{}/click", self.element(selector)), &json!({}));
    }

    /// Makes pages believe that the screen is so many pixels wide; a window has a least width.
    #[track_caller]
    pub fn narrow_to(&self, width: u32) {
        let screen = json!({ "width": width, "height": 640, "deviceScaleFactor": 1, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": screen });
        self.tell("/goog/cdp/execute", &command);
    }

    /// What a script returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.of_session("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let found = self.of_session(
            "POST",
            "/element",
            &json!({ "using": "css selector", "value": selector }),
        );
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    #[track_caller]
    fn tell(&self, path: &str, body: &Value) {
        self.of_session("POST", path, body);
    }

    #[track_caller]
    fn of_session(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    /// One command; its value.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).expect("chromedriver listens");
        // A browser takes its time to start on a machine that does other things too.
        socket.set_read_timeout(Some(PATIENCE * 2)).expect("a socket");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: \
             close\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).expect("chromedriver listens");
        let (head, answer) = read_answer(&mut BufReader::new(socket)).expect("an answer in time");
        let mut answered: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answered}");
        answered["value"].take()
    }
}

/// The first line and the body; the driver leaves the connection open.
fn read_answer(from: &mut impl BufRead) -> io::Result<(String, String)> {
    let (mut first, mut length) = (String::new(), 0);
    from.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok((first, String::from_utf8_lossy(&body).into_owned()))
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            // Ends the browser before its profile is removed.
            self.of_session("DELETE", "", &Value::Null);
        }
    }
}
