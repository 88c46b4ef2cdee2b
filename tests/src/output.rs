//! What a program printed and returned, with assertions that show all of it when they fail.

use std::fmt;

/// The result of a finished program.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$ {}\nexit {}\n--- stdout\n{}--- stderr\n{}---", self.command, self.code, self.stdout, self.stderr)
    }
}

impl Output {
    /// Fails unless the program succeeded; returns its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "should have succeeded:\n{self}");
        self.stdout
    }
    /// Fails unless the program failed; returns its standard error.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(self.code != 0, "should have failed:\n{self}");
        self.stderr
    }
    /// Fails unless it succeeded and printed exactly this.
    #[track_caller]
    pub fn prints(self, expected: &str) {
        assert!(self.code == 0 && self.stdout == expected, "should have printed:\n{expected}\nbut:\n{self}");
    }
    /// Fails unless it succeeded and printed something that contains this.
    #[track_caller]
    pub fn contains(self, expected: &str) -> String {
        assert!(self.code == 0 && self.stdout.contains(expected), "should have printed something with {expected:?}:\n{self}");
        self.stdout
    }
    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        self.code == 0
    }
}
