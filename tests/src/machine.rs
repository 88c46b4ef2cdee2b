//! A network namespace that stands for a machine: with loopback, one interface with an address, and a default route.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Output;

/// Address of the machine's interface.
pub const ADDRESS: &str = "198.18.0.2";

/// A network of its own. Removed when dropped.
pub struct Machine {
    name: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("iproute2 is installed by `make deps`");
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}

impl Machine {
    /// A new machine.
    pub fn new() -> Self {
        let name = format!("kst-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let machine = Machine { name };
        let n = machine.name.as_str();
        ip(&["-n", n, "link", "set", "lo", "up"]);
        // A veth pair: not every kernel has dummy devices.
        ip(&["-n", n, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0-peer"]);
        ip(&["-n", n, "link", "set", "eth0-peer", "up"]);
        ip(&["-n", n, "addr", "add", &format!("{ADDRESS}/24"), "dev", "eth0"]);
        ip(&["-n", n, "link", "set", "eth0", "up"]);
        ip(&["-n", n, "route", "add", "default", "via", "198.18.0.1", "dev", "eth0"]);
        machine
    }

    /// What moves the thread that calls it onto this machine, for clients within the test's own process.
    pub fn entrance(&self) -> impl FnOnce() + Send + 'static {
        let path = format!("/run/netns/{}", self.name);
        move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            let namespace = std::fs::File::open(path).expect("the machine is there");
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).expect("the tests run as root");
        }
    }

    /// Removes the machines of test processes that are gone.
    pub fn remove_stale() {
        let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
        for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
            let pid = name.strip_prefix("kst-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
                let _ = Command::new("ip").args(["netns", "delete", &name]).status();
            }
        }
    }

    /// A command that runs on this machine. `nsenter` and not `ip netns exec`: that would hide the cgroup mounts.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// A listener on this machine's loopback, for a server in the test's own process.
    pub fn listen(&self) -> std::net::TcpListener {
        // A socket stays in the network it was made in; the thread that went there to make it ends.
        let enter = self.entrance();
        let made = std::thread::spawn(move || {
            enter();
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free")
        });
        let listener = made.join().expect("the thread above does not panic");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        listener
    }

    /// Runs a shell script on this machine.
    pub fn sh(&self, script: &str) -> Output {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        run(command)
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Output {
    let text =
        format!("{} {}", command.get_program().to_string_lossy(), command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" "));
    let output = command.output().unwrap_or_else(|e| panic!("{text}: {e}"));
    Output {
        command: text,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}
