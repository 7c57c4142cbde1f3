//! Machines for a test: each has mount, network, UTS, IPC and process namespaces of its own, so that it has its own host name,
//! addresses, `/etc`, `/tmp`, `/var/lib`, `/run` and home directory, and the program in `/usr/local/bin`.
//!
//! The first machine has a cable to each of the others, which do not see one another. Everything is in namespaces that nobody
//! has named: when the process that holds them ends, so do all others in them, and mounts and networks are gone.

use super::process::{Output, Process, TestDir, run};
use super::wait::until_ok;
use super::{PATIENCE, clean_environment};
use std::path::Path;
use std::process::Command;

/// Makes the machine out of copies and empty directories; `$1` is the program, `$2` the directory that machines share,
/// `$3` the machine's name, `$4` the lines of its `/etc/hosts`.
const SET_UP: &str = r#"
    set -e
    hostname "$3"
    ip link set lo up
    mount -t tmpfs tmpfs /usr/local/bin
    touch /usr/local/bin/postern
    mount --bind "$1" /usr/local/bin/postern
    mount -t tmpfs tmpfs /mnt
    cp -a /etc /mnt/etc
    mount --bind /mnt/etc /etc
    umount -l /mnt
    rm -rf /etc/postern* /etc/teleport* /etc/postgresql/*
    printf '127.0.0.1 localhost\n::1 localhost\n%s\n' "$4" > /etc/hosts
    mount --bind "$2" /mnt
    mkdir "/mnt/$3"
    mount --bind "/mnt/$3" /root
    for directory in /tmp /var/lib /var/log /run /dev/shm; do
        mount -t tmpfs -o mode=755 tmpfs "$directory"
    done
    chmod 1777 /tmp /dev/shm
    cat > /usr/local/bin/scp <<'SCP'
#!/bin/sh -e
# The machines have no SSH; what is copied to one is put into root's home directory there.
for last; do :; done
for file; do case $file in *:) ;; *) cp -p -- "$file" "/mnt/${last%:}/" ;; esac; done
SCP
    chmod 755 /usr/local/bin/scp
    echo the machine is set up
    sleep infinity &
    wait
"#;

/// What a machine cannot do without, by the Debian package that has it.
const TOOLS: [(&str, &str); 10] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("runuser", "util-linux"),
    ("mount", "mount"),
    ("hostname", "hostname"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("service", "init-system-helpers"),
    ("pg_createcluster", "postgresql"),
];

/// A mount, a cable, and a file of another account: root of a user namespace may not give files away.
const TRY: &str = "\
    mount -t tmpfs tmpfs /mnt && touch /mnt/file && chown postgres /mnt/file && \
    ip link add name veth0 type veth peer name veth1";

/// What makes namespaces like those of a machine, for a try.
const UNSHARE: [&str; 8] = [
    "--mount",
    "--net",
    "--uts",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// Why there can be no machines here: we are not root, or may not make namespaces, or a tool is missing.
pub fn impediment() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("namespaces of hosts need root".to_owned());
    }
    for (tool, package) in TOOLS {
        let is_there = |directory: &&str| Path::new(directory).join(tool).exists();
        if !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(is_there) {
            return Some(format!("the program {tool} is not there (apt-get install {package})"));
        }
    }
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(["sh", "-c", TRY]);
    let tried = run(command, PATIENCE);
    (tried.code != 0).then(|| format!("namespaces are not permitted here: {}", tried.stderr.trim()))
}

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    pub name: &'static str,
    holder: Process,
}

impl Machine {
    fn boot(logs: &TestDir, shared: &TestDir, name: &'static str, hosts: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(UNSHARE).args(["bash", "-c", SET_UP, "machine"]);
        command.arg(env!("CARGO_BIN_EXE_postern")).arg(shared.path());
        command.args([name, hosts]);
        let holder = Process::start(name, command, logs.join(format!("{name}.log")));
        Self { name, holder }
    }

    fn wait_until_set_up(&mut self) {
        until_ok(&format!("the machine {} is set up", self.name), PATIENCE, || {
            let log = self.holder.log_text();
            if let Some(code) = self.holder.exit_code() {
                panic!("{} ended with {code}: {log}", self.name);
            }
            if log.contains("the machine is set up") {
                Ok(())
            } else {
                Err(log)
            }
        });
    }

    /// A script for the machine's shell, as root and in root's home directory.
    pub fn shell(&self, script: &str) -> Command {
        let holder = self.holder.id();
        let mut command = Command::new("nsenter");
        clean_environment(&mut command, "/root".as_ref());
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .arg(format!("--target={holder}"))
            .args(["--mount", "--net", "--uts", "--ipc"])
            .arg(format!("--pid=/proc/{holder}/ns/pid_for_children"))
            .args(["bash", "-c", &format!("cd\n{script}")]);
        command
    }

    /// Runs a script to its end.
    #[track_caller]
    pub fn run(&self, script: &str) -> Output {
        run(self.shell(script), PATIENCE * 4)
    }

    /// A cable to `other`, whose end has `1` as the last part of its address here and `2` there.
    fn connect(&self, other: &Self, network: &str) {
        let (here, there) = (self.holder.id(), other.holder.id());
        let in_network = |holder: u32, words: &str| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--target={holder}")).args(["--net", "ip"]);
            command.args(words.split(' '));
            run(command, PATIENCE).ok();
        };
        let name = other.name.split('.').next().unwrap_or(other.name);
        in_network(
            here,
            &format!("link add name {name} type veth peer name eth0 netns {there}"),
        );
        for (holder, end, last) in [(here, name, 1), (there, "eth0", 2)] {
            in_network(holder, &format!("address add {network}.{last}/24 dev {end}"));
            in_network(holder, &format!("link set {end} up"));
        }
    }
}

/// A machine in the middle and those with a cable to it.
#[derive(Debug)]
pub struct Machines {
    machines: Vec<Machine>,
    _shared: TestDir,
    pub logs: TestDir,
}

impl Machines {
    /// Networks that are for documentation (RFC 5737), and so are nobody's; one for each cable.
    const NETWORKS: [&'static str; 2] = ["192.0.2", "198.51.100"];

    /// Boots three machines by name, and connects the first to the others. Each finds the first, and itself, by name.
    pub fn boot(middle: &'static str, others: [&'static str; 2]) -> Self {
        let (logs, shared) = (TestDir::new(), TestDir::new());
        let cables = || others.into_iter().zip(Self::NETWORKS);
        let from_the_middle: Vec<String> = cables().map(|(name, network)| format!("{network}.2 {name}")).collect();
        let hosts = format!("{}.1 {middle}\n{}", Self::NETWORKS[0], from_the_middle.join("\n"));
        let mut machines = vec![Machine::boot(&logs, &shared, middle, &hosts)];
        for (name, network) in cables() {
            let hosts = format!("{network}.1 {middle}\n{network}.2 {name}");
            machines.push(Machine::boot(&logs, &shared, name, &hosts));
        }
        for machine in &mut machines {
            machine.wait_until_set_up();
        }
        for (other, network) in machines[1..].iter().zip(Self::NETWORKS) {
            machines[0].connect(other, network);
        }
        Self {
            machines,
            _shared: shared,
            logs,
        }
    }

    pub fn machine(&self, name: &str) -> &Machine {
        let found = self.machines.iter().find(|machine| machine.name == name);
        found.unwrap_or_else(|| panic!("there is no machine {name}"))
    }
}
