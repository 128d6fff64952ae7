//! How a process is started, again and again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Result;

/// A program with its arguments and its environment; made from a [`Command`].
#[derive(Clone, Debug)]
pub struct Launch {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, Option<OsString>)>,
    working_directory: Option<PathBuf>,
}

impl Launch {
    /// Sets a variable of the process; a later one of the same name takes its place.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.set_env(name, value);
        self
    }

    /// As [`env`](Launch::env).
    pub fn set_env(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, Some(value.into())));
    }

    /// What a variable is set to.
    pub fn env_value(&self, name: &str) -> Option<&OsStr> {
        self.environment.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref())
    }

    /// Sets a variable no more.
    pub fn remove_env(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// The same with another directory: wherever the one stands in arguments and variables, alone or within other text, the other is put.
    #[must_use]
    pub fn replaced(&self, directory: &Path, other: &Path) -> Self {
        let (from, to) = (directory.to_string_lossy(), other.to_string_lossy());
        let replace = |text: &OsString| match text.to_str() {
            Some(text) => OsString::from(text.replace(&*from, &to)),
            None => text.clone(),
        };
        Launch {
            program: self.program.clone(),
            arguments: self.arguments.iter().map(replace).collect(),
            environment: self
                .environment
                .iter()
                .map(|(name, value)| (name.clone(), value.as_ref().map(replace)))
                .collect(),
            working_directory: self.working_directory.clone(),
        }
    }

    /// Starts it; its words go to a new file.
    pub(super) fn spawn(&self, log: &Path) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.working_directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
        Ok(command.spawn()?)
    }
}

impl From<&Command> for Launch {
    /// Program, arguments, environment and working directory; its pipes are not taken over.
    fn from(command: &Command) -> Self {
        Launch {
            program: command.get_program().to_owned(),
            arguments: command.get_args().map(OsString::from).collect(),
            environment: command.get_envs().map(|(name, value)| (name.to_owned(), value.map(OsString::from))).collect(),
            working_directory: command.get_current_dir().map(PathBuf::from),
        }
    }
}

impl From<Command> for Launch {
    fn from(command: Command) -> Self {
        Launch::from(&command)
    }
}

impl From<&Launch> for Launch {
    fn from(launch: &Launch) -> Self {
        launch.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_directory_stands_wherever_the_first_did() {
        let mut command = Command::new("service");
        command.arg("--directory=/a/pond").arg("--other").env("SETUP", r#"{"directory":"/a/pond"}"#);
        let other = Launch::from(command).replaced(Path::new("/a/pond"), Path::new("/b/copy"));
        assert_eq!(other.arguments, ["--directory=/b/copy", "--other"]);
        assert_eq!(other.env_value("SETUP"), Some(OsStr::new(r#"{"directory":"/b/copy"}"#)));
    }
}
