//! A terminal as a person has one: tmux, with a shell on the cluster's machine.
//!
//! Owns its tmux server, which has a socket of its own, and ends it when dropped.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::run;
use crate::{Cluster, Output, bin_dir, eventually};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A terminal in which a shell waits for input.
pub struct Terminal<'c> {
    cluster: &'c Cluster,
    socket: String,
    written: PathBuf,
}

impl<'c> Terminal<'c> {
    /// A terminal of that many columns and rows. The shell finds kctl on its PATH.
    pub fn open(cluster: &'c Cluster, columns: u32, rows: u32) -> Self {
        let socket = format!("kctl-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let written = cluster.file(&format!("{socket}.out"), "");
        let terminal = Terminal { cluster, socket, written };
        let path = format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap_or_default());
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let shell = "env PS1='> ' PATH=\"$PATH\" sh";
        let arguments = ["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, shell];
        let mut command = terminal.command(&arguments);
        command.env("PATH", path).env("LANG", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR");
        run(command).ok();
        terminal.tmux(&["set-option", "-g", "status", "off"]).ok();
        terminal.tmux(&["pipe-pane", &format!("cat >> {}", terminal.written.display())]).ok();
        terminal.shows(">");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments))
    }

    /// tmux with a socket that goes when the cluster's directory goes.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.client("tmux".into(), &[&["-L", &self.socket], arguments].concat());
        command.env("TMUX_TMPDIR", self.written.with_file_name(""));
        command
    }

    /// Types text and Enter.
    pub fn enter(&self, text: &str) {
        self.write(text);
        self.press("Enter");
    }

    /// Types text.
    pub fn write(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]).ok();
    }

    /// Presses a key by tmux's name: `C-c`, `Escape`, `Enter`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]).ok();
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u32, rows: u32) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).ok();
    }

    /// Empties the screen.
    pub fn clear(&self) {
        self.enter("clear");
        eventually("the screen is empty", || if self.screen().trim() == ">" { Ok(()) } else { Err(self.screen()) });
    }

    /// What the screen shows.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).ok()
    }

    /// What the screen shows, with the escapes of its colours.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"]).ok()
    }

    /// Everything that was ever written to the terminal, escapes and all.
    pub fn history(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.written).unwrap_or_default()).into_owned()
    }

    /// Waits until the shell asks for the next line: what is typed while a program still reads is the program's.
    #[track_caller]
    pub fn prompts(&self) {
        self.shows_what("the shell is back", |screen| screen.lines().rfind(|l| !l.trim().is_empty()).is_some_and(|l| l.trim() == ">"));
    }

    /// Waits until the screen shows a text, and returns the screen.
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        self.shows_what(&format!("the screen shows {text:?}"), |screen| screen.contains(text))
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub fn shows_what(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        eventually(what, || {
            let screen = self.screen();
            if holds(&screen) { Ok(screen) } else { Err(screen) }
        })
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
