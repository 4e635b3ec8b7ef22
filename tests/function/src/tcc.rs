// SPDX-License-Identifier: GPL-2.0-only

//! The compile chain: each stage is a run of tcc on files in memory.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TCC: &str = "/usr/bin/tcc";

/// A part of what a compiler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// C to preprocessed C.
    Preprocess,
    /// Preprocessed C to an object file.
    Compile,
    /// An object file to an executable. It gets no library.
    Link,
}

impl Step {
    /// Takes the step in `directory`, on a file's content. Fails with what tcc says.
    pub fn take(
        self,
        directory: &Path,
        input: &[u8],
    ) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let (from, options, to): (_, &[&str], _) = match self {
            Self::Preprocess => ("in.c", &["-E"], "out.i"),
            Self::Compile => ("in.c", &["-c"], "out.o"),
            Self::Link => ("in.o", &["-nostdlib", "-static"], "out"),
        };
        let files = Files([from, to].map(|name| directory.join(name)));
        let [from, to] = &files.0;
        fs::write(from, input)?;
        let said = Command::new(TCC)
            .args(options)
            .args([OsStr::new("-o"), to.as_ref(), from.as_ref()])
            .output()
            .map_err(|error| format!("{TCC}: {error}"))?;
        if !said.status.success() {
            let why = String::from_utf8_lossy(&said.stderr);
            return Err(format!("{TCC}: {}: {}", said.status, why.trim()).into());
        }
        Ok(fs::read(to)?)
    }
}

/// Gone when they are not needed any more, even after a failure: memory is short.
struct Files([PathBuf; 2]);

impl Drop for Files {
    fn drop(&mut self) {
        for file in &self.0 {
            // The second one may never have been made.
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// As in the guest, and the result checks itself.
    #[test]
    fn the_chain_makes_programs_that_work() {
        let directory = tempfile::tempdir().expect("a directory");
        for source in [sleepy_function::SMALL_C, sleepy_function::LARGE_C] {
            let mut bytes = source.as_bytes().to_vec();
            for step in [Step::Preprocess, Step::Compile, Step::Link] {
                bytes = step.take(directory.path(), &bytes).expect("tcc takes it");
            }
            let program = directory.path().join("program");
            fs::write(&program, &bytes).expect("it is written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("it is ours");
            let ran = Command::new(&program).output().expect("it runs");
            assert!(
                ran.status.success(),
                "{}",
                String::from_utf8_lossy(&ran.stdout)
            );
            fs::remove_file(&program).expect("it is there");
        }
        assert_eq!(
            fs::read_dir(directory.path()).expect("it is there").count(),
            0
        );
    }

    #[test]
    fn an_error_of_the_compiler_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = Step::Compile.take(directory.path(), b"int main(void) { return x; }");
        assert!(
            error
                .expect_err("there is no x")
                .to_string()
                .contains("'x' undeclared")
        );
    }
}
