//! Progress for people: a bar or a spinner on stderr while something takes long.
//!
//! Owns the one line that is shown at a time, and lets other output pass above it. Must write nothing where stderr is no terminal.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bytes from which on a transfer is worth a bar.
const LARGE: u64 = 1 << 20;

thread_local! {
    /// What is shown now; the program's own thread is the only one that prints.
    static SHOWN: RefCell<Option<ProgressBar>> = const { RefCell::new(None) };
}

/// A line of progress, gone when dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Something of which so many steps are to be done.
    pub fn steps(total: u64) -> Progress {
        Progress::new(Some(total), "{spinner} [{bar:20}] {pos}/{len} {wide_msg}")
    }

    /// A transfer, of so many bytes if that is known.
    fn bytes(total: Option<u64>) -> Progress {
        match total {
            Some(_) => Progress::new(total, "{spinner} [{bar:20}] {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}"),
            None => Progress::new(total, "{spinner} {bytes} {bytes_per_sec} {wide_msg}"),
        }
    }

    fn new(total: Option<u64>, template: &str) -> Progress {
        let target = if for_people() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        // The templates are ours: one that does not parse would show the library's own line.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
            SHOWN.set(Some(bar.clone()));
        }
        Progress(bar)
    }

    /// Says what is being done.
    pub fn say(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }
    /// So many steps are done, of so many.
    pub fn reach(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
    /// One more step is done.
    pub fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        SHOWN.set(None);
    }
}

/// Whether a person sees what is written to stderr.
pub fn for_people() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Writes something else, above the progress if there is some.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    match SHOWN.with_borrow(Clone::clone) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Counts the bytes of a transfer, and shows them once they are many.
#[derive(Debug)]
pub struct Transfer {
    name: String,
    total: Option<u64>,
    passed: u64,
    shown: Option<Progress>,
}

impl Transfer {
    /// Of so many bytes, if that is known.
    pub fn new(name: &str, total: Option<u64>) -> Transfer {
        Transfer { name: name.to_owned(), total, passed: 0, shown: None }
    }

    /// These bytes have passed; the first of an archive that comes in tell how many are to come.
    pub fn passed(&mut self, bytes: &[u8]) {
        if self.passed == 0 && self.total.is_none() {
            self.total = first_size(bytes);
        }
        self.passed += bytes.len() as u64;
        if self.shown.is_none() && self.total.unwrap_or(0).max(self.passed) >= LARGE {
            let progress = Progress::bytes(self.total);
            progress.say(&self.name);
            self.shown = Some(progress);
        }
        if let Some(progress) = &self.shown {
            progress.0.set_position(self.passed);
        }
    }
}

/// The size of an archive's first entry, if it is a file: then it is most often the only one.
fn first_size(archive: &[u8]) -> Option<u64> {
    let header = tar::Header::from_byte_slice(archive.get(..512)?);
    header.entry_type().is_file().then(|| header.size().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_of_an_archive_tells_its_size() {
        let mut header = tar::Header::new_gnu();
        header.set_size(5_000_000);
        assert_eq!(first_size(header.as_bytes()), Some(5_000_000));
        header.set_entry_type(tar::EntryType::Directory);
        assert_eq!(first_size(header.as_bytes()), None);
        assert_eq!(first_size(b"short"), None);
    }

    #[test]
    fn only_large_transfers_are_shown() {
        let mut small = Transfer::new("f", Some(10));
        small.passed(b"0123456789");
        assert!(small.shown.is_none());
        let mut large = Transfer::new("f", Some(LARGE));
        large.passed(b"0");
        assert!(large.shown.is_some());
    }
}
