//! Asking a person for password and code: on the terminal, or two lines of standard input when that is none.

use super::super::Failure;
use crate::cli::terminal::one_line;
use crate::model::Secret;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use zeroize::Zeroizing;

/// Above the longest password (128 characters of at most 4 bytes).
const ANSWER_MAX_BYTES: usize = 1024;

/// The password and the one-time code.
pub fn password_and_code(user: &str) -> Result<(Secret<String>, Secret<String>), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let mut lines = stdin.lock();
        return Ok((
            line(&mut lines, "the password")?,
            line(&mut lines, "the one-time code")?,
        ));
    }
    let mut terminal = Terminal::open()?;
    let password = terminal.ask(&format!("Enter password for Postern user {}:", one_line(user)))?;
    let code = terminal.ask("Enter your OTP token:")?;
    Ok((password, code))
}

fn line(lines: &mut impl std::io::BufRead, what: &str) -> Result<Secret<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = lines.take(ANSWER_MAX_BYTES as u64).read_line(&mut text);
    read.map_err(|error| Failure::failed(format!("{what} cannot be read from standard input: {error}")))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage(format!(
            "standard input is no terminal and does not hold {what}: write the password on its first line and the one-time code \
             on its second"
        )));
    }
    Ok(Secret::new(text.to_owned()))
}

/// The terminal without echo; it is as it was when this is dropped. Keys that make signals are read as bytes meanwhile, so that
/// no signal ends the program between.
struct Terminal {
    tty: File,
    before: Termios,
}

impl Terminal {
    fn open() -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("/dev/tty cannot be used: {error}"));
        let tty = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .map_err(|error| failed(&error))?;
        let before = tcgetattr(&tty).map_err(|error| failed(&error))?;
        let mut silent = before.clone();
        silent.local_flags &= !(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        silent.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        let terminal = Self { tty, before };
        tcsetattr(&terminal.tty, SetArg::TCSAFLUSH, &silent).map_err(|error| failed(&error))?;
        Ok(terminal)
    }

    fn ask(&mut self, question: &str) -> Result<Secret<String>, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("/dev/tty cannot be used: {error}"));
        writeln!(self.tty, "{question}").map_err(failed)?;
        let mut typed = Typed::default();
        let mut byte = Zeroizing::new([0_u8; 1]);
        loop {
            let read = self.tty.read(&mut *byte).map_err(failed)?;
            match if read == 0 { Step::Stop } else { typed.take(byte[0]) } {
                Step::More => {}
                Step::Done => break,
                Step::Stop => return Err(Failure::failed("you stopped the login")),
            }
        }
        let text = String::from_utf8(typed.bytes.to_vec());
        text.map(Secret::new)
            .map_err(|_| Failure::failed("what was typed is not text in UTF-8"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing is left to be done about a terminal that has gone.
        let _gone = tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    More,
    Done,
    Stop,
}

/// A line as it is typed.
struct Typed {
    bytes: Zeroizing<Vec<u8>>,
}

impl Default for Typed {
    fn default() -> Self {
        // Never moved while it grows: no copy is left in memory.
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(ANSWER_MAX_BYTES)),
        }
    }
}

impl Typed {
    fn take(&mut self, byte: u8) -> Step {
        match byte {
            b'\r' | b'\n' => return Step::Done,
            // Ctrl-C, Ctrl-D, Ctrl-\.
            3 | 4 | 28 => return Step::Stop,
            // Ctrl-U.
            21 => self.bytes.clear(),
            // Backspace takes a whole character.
            8 | 127 => while self.bytes.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            byte if self.bytes.len() < ANSWER_MAX_BYTES => self.bytes.push(byte),
            _ => {}
        }
        Step::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited_as_it_is_typed_and_ctrl_c_stops() {
        let mut typed = Typed::default();
        for byte in "wrong\u{15}pä\u{7f}assé\u{7f}".bytes() {
            assert_eq!(typed.take(byte), Step::More);
        }
        assert_eq!(typed.bytes.as_slice(), b"pass");
        assert_eq!(typed.take(b'\r'), Step::Done);
        assert_eq!(typed.take(3), Step::Stop);
    }

    #[test]
    fn without_a_terminal_the_answers_are_lines_and_a_missing_one_is_named() {
        let mut input = std::io::Cursor::new("pass word \r\n123456");
        assert_eq!(line(&mut input, "the password").unwrap().expose(), "pass word ");
        assert_eq!(line(&mut input, "the code").unwrap().expose(), "123456");
        let said = line(&mut input, "the code").unwrap_err().to_string();
        assert!(said.contains("the code"), "{said}");
    }
}
