// SPDX-License-Identifier: GPL-2.0-only

//! What goes wrong, in words, and with which exit code.

use std::fmt::Display;

use rustix::io::Errno;

/// Exit codes; `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It worked.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The module is not loaded.
    NotLoaded = 3,
    /// A capability is missing.
    NotPermitted = 4,
}

/// An error: a sentence that names the thing and the remedy, and an exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The exit code.
    pub exit: Exit,
    /// The sentence.
    pub message: String,
}

/// What most functions here return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// It did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: one_line(message),
        }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: one_line(message),
        }
    }

    /// The module is not loaded.
    pub fn not_loaded(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::NotLoaded,
            message: one_line(message),
        }
    }

    /// A capability is missing.
    pub fn not_permitted(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::NotPermitted,
            message: one_line(message),
        }
    }

    /// An error number that needs no words of its own: `what: why`.
    pub fn os(what: impl Display, errno: Errno) -> Self {
        let why = words(errno);
        match errno {
            Errno::PERM | Errno::ACCESS => {
                Self::not_permitted(format!("{what}: {why}; run as root"))
            }
            _ => Self::failed(format!("{what}: {why}")),
        }
    }

    /// The same error, with the name of the command before it.
    pub fn of(self, command: &str) -> Self {
        Self {
            message: format!("{command}: {}", self.message),
            ..self
        }
    }
}

/// A message as it is printed. What it quotes may hold anything: a line's end, or a command to the terminal.
pub fn one_line(message: impl Into<String>) -> String {
    let message = message.into();
    if !message.contains(char::is_control) {
        return message;
    }
    let shown = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    message.chars().map(shown).collect()
}

/// What the C library says about an error number, as a part of a sentence.
pub fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rights_have_their_own_exit_code() {
        assert_eq!(Error::os("x", Errno::PERM).exit, Exit::NotPermitted);
        assert_eq!(Error::os("x", Errno::ACCESS).exit, Exit::NotPermitted);
        assert_eq!(Error::os("x", Errno::NOMEM).exit, Exit::Failed);
    }

    #[test]
    fn message_is_one_line() {
        let error = Error::failed("a\nb \u{1b}[2J ä\u{9b}");
        assert_eq!(error.message, "a\\nb \\u{1b}[2J ä\\u{9b}");
    }

    #[test]
    fn words_are_plain() {
        assert_eq!(
            Error::os("link tap0", Errno::NODEV)
                .of("vm add")
                .to_string(),
            "vm add: link tap0: no such device"
        );
    }
}
