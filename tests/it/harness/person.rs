//! Somebody who types the commands of people, on a machine of their own: a home directory.

use super::cluster::out;
use super::https::Https;
use super::sign_up::{code_at, shown_secret};
use super::{Cluster, Output, PATIENCE, TestDir, clean_environment, postgres, run};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

pub const PASSWORD: &str = "correct horse battery staple";

/// Somebody with an account and a home directory.
#[derive(Debug)]
pub struct Person {
    pub home: TestDir,
    pub name: &'static str,
    pub password: &'static str,
    pub secret: String,
    /// The path of the link that was used.
    pub link: String,
    pub proxy: String,
    pub pin: String,
    /// `SSL_CERT_FILE`.
    pub trusts: Option<PathBuf>,
}

impl Person {
    /// Signs up by a link, with the code of the step before this one: two logins are left for the moment.
    pub fn sign_up(cluster: &Cluster, name: &'static str) -> Self {
        Self::sign_up_with(cluster, name, PASSWORD)
    }

    pub fn sign_up_with(cluster: &Cluster, name: &'static str, password: &'static str) -> Self {
        let user = super::cluster::user(name, "tester", "app");
        cluster.create(&user).ok();
        let home = TestDir::new();
        let prefix = home.join("trust");
        cluster
            .ctl(&[
                "auth",
                "sign",
                "--format=file",
                &format!("--user={name}"),
                &out(&prefix),
            ])
            .ok();
        let said = cluster.ctl(&["users", "reset", name]).ok();
        let link = said.lines().find(|line| line.contains("/web/")).expect("a link");
        let path = &link[link.find("/web/").expect("a page")..];
        let web = Https::new(&prefix.with_extension("cas"), cluster.proxy_port());
        let secret = shown_secret(&web.get(path).body);
        let fields = [
            ("password", password),
            ("confirm", password),
            ("otp", &code_at(&secret, -1)),
        ];
        let answer = web.post(path, &fields);
        assert_eq!(answer.status, 200, "{}", answer.body);
        for program in ["postern", "tctl", "tsh"] {
            symlink(env!("CARGO_BIN_EXE_postern"), home.join(program)).expect("a link");
        }
        Self {
            home,
            name,
            password,
            secret,
            link: path.to_owned(),
            proxy: format!("localhost:{}", cluster.proxy_port()),
            pin: cluster.ca_pin(),
            trusts: None,
        }
    }

    /// Runs a line such as `tsh status`, with `input` on its standard input.
    #[track_caller]
    pub fn typed_with(&self, line: &str, input: &str) -> Output {
        let file = self.home.write("input", input);
        let mut words = line.split(' ');
        let mut command = Command::new("sh");
        command.arg("-c").arg("exec \"$0\" \"$@\" < \"$INPUT\"");
        command.arg(self.home.join(words.next().expect("a name")));
        command.args(words);
        self.environment(&mut command);
        command.env("INPUT", file);
        run(command, PATIENCE)
    }

    pub fn environment(&self, command: &mut Command) {
        clean_environment(command, self.home.path());
        let psql = postgres::program("psql", self.home.path());
        let programs = std::path::Path::new(psql.get_program())
            .parent()
            .expect("a directory")
            .to_owned();
        if let Some(file) = &self.trusts {
            command.env("SSL_CERT_FILE", file);
        }
        command.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    }

    #[track_caller]
    pub fn typed(&self, line: &str) -> Output {
        self.typed_with(line, "")
    }

    #[track_caller]
    pub fn log_in(&self, program: &str, step: i64) -> Output {
        let line = format!(
            "{program} login --proxy={} --user={} --ca-pin={}",
            self.proxy, self.name, self.pin
        );
        self.typed_with(&line, &format!("{}\n{}\n", self.password, code_at(&self.secret, step)))
    }

    pub fn psql(&self, service: &str, sql: &str) -> Output {
        let mut command = postgres::program("psql", self.home.path());
        self.environment(&mut command);
        command
            .args(["-X", "-A", "-t", "-c", sql])
            .arg(format!("service={service}"));
        run(command, PATIENCE)
    }

    pub fn services(&self) -> String {
        std::fs::read_to_string(self.home.join(".pg_service.conf")).unwrap_or_default()
    }
}
