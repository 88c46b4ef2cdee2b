//! A program that goes on while the test does other things: what it has printed so far, and what is typed into it.
//!
//! Owns the process; it is ended when this is dropped.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::eventually;

/// A program that was started.
pub struct Running {
    command: String,
    child: Child,
    input: Option<ChildStdin>,
    printed: Receiver<Vec<u8>>,
    seen: String,
}

impl Running {
    /// Starts a program; what it prints to both of its streams comes together.
    pub fn start(mut command: Command) -> Self {
        let text = command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{text}: {e}"));
        let (sender, printed) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        for mut stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    // The test may have seen enough.
                    let _ = sender.send(buffer[..length].to_vec());
                }
            });
        }
        Running { command: text, input: child.stdin.take(), child, printed, seen: String::new() }
    }

    fn read(&mut self) -> String {
        for part in self.printed.try_iter() {
            self.seen.push_str(&String::from_utf8_lossy(&part));
        }
        format!("$ {}\n{}", self.command, self.seen)
    }

    /// Waits until it has printed this; returns all that it has printed.
    #[track_caller]
    pub fn shows(&mut self, wanted: &str) -> &str {
        eventually(&format!("{wanted:?}"), || {
            let all = self.read();
            if self.seen.contains(wanted) { Ok(()) } else { Err(all) }
        });
        &self.seen
    }

    /// Waits for the line that begins with this; returns the rest of it.
    #[track_caller]
    pub fn line_after(&mut self, start: &str) -> String {
        eventually(&format!("a line that begins with {start:?}"), || {
            let all = self.read();
            // Only a whole line: the rest may still come.
            let lines = self.seen.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            lines.filter_map(|line| line.strip_prefix(start)).map(|rest| rest.trim_end().to_owned()).next().ok_or(all)
        })
    }

    /// Types something into it.
    pub fn types(&mut self, text: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).unwrap_or_else(|e| panic!("{}: {e}", self.command));
    }

    /// Waits until it has ended by itself; returns its exit code and all that it has printed.
    #[track_caller]
    pub fn ends(mut self) -> (i32, String) {
        drop(self.input.take());
        let status = eventually("the program ends", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}: {}", self.read())),
        });
        // Both readers have seen the end when nobody can send any more.
        self.read();
        while let Ok(part) = self.printed.recv_timeout(std::time::Duration::from_secs(5)) {
            self.seen.push_str(&String::from_utf8_lossy(&part));
        }
        (status.code().unwrap_or(-1), std::mem::take(&mut self.seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
