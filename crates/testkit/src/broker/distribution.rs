//! Where Kafka's jars come from: Maven Central, once, into a cache directory that is complete or absent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::process::run_bounded;
use crate::error::{Error, ErrorKind, Result};

/// The version of Apache Kafka that the testkit runs.
pub const KAFKA_VERSION: &str = "4.3.1";

const POM: &str = include_str!("pom.xml");
// Named with its version: without one Maven would look up the newest, another one each month.
const COPY_GOAL: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const FETCH_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The jars of one Kafka version on this machine, and the Java that runs them.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    home: PathBuf,
}

impl Distribution {
    /// Gives the jars, fetching them first if they are not there.
    ///
    /// Several processes may call this at once: one fetches, the others wait for it.
    pub(crate) fn fetch() -> Result<Self> {
        let home = home_directory();
        if !jars(&home).is_dir() {
            fetch_into(&home)?;
        }
        Ok(Distribution { home })
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// A `java` with Kafka on its class path; the caller adds the main class and its arguments.
    pub(crate) fn java(&self, heap_limit_mib: u32) -> Command {
        let mut class_path = OsString::from(jars(&self.home));
        class_path.push("/*");
        let mut java = Command::new("java");
        java.arg(format!("-Xmx{heap_limit_mib}m"))
            // Start quickly and leave the cores to what is tested: no second compiler, one collector thread,
            // no files of performance counters in /tmp.
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData"])
            .arg("-cp")
            .arg(class_path);
        java
    }
}

fn jars(home: &Path) -> PathBuf {
    home.join("libs")
}

/// `$MILLPOND_KAFKA_HOME`, else `kafka/VERSION` in cargo's target directory that this program was built in, else
/// the same in the user's cache directory.
fn home_directory() -> PathBuf {
    if let Some(home) = std::env::var_os("MILLPOND_KAFKA_HOME").filter(|home| !home.is_empty()) {
        return PathBuf::from(home);
    }
    let base = target_directory().unwrap_or_else(|| match std::env::var_os("HOME") {
        Some(home) => PathBuf::from(home).join(".cache/millpond"),
        None => std::env::temp_dir().join("millpond"),
    });
    base.join("kafka").join(KAFKA_VERSION)
}

/// Cargo marks its target directory with a tag for backup programs.
fn target_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf)
}

fn fetch_into(home: &Path) -> Result<()> {
    let failed = |doing: &str, path: &Path, error: std::io::Error| {
        Error::new(ErrorKind::Failed, format!("cannot {doing} {}", path.display())).because(error)
    };
    fs::create_dir_all(home).map_err(|error| failed("create", home, error))?;
    let lock_path = home.join("lock");
    let lock = File::create(&lock_path).map_err(|error| failed("create", &lock_path, error))?;
    let deadline = Instant::now() + FETCH_LIMIT;
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            return Err(Error::new(
                ErrorKind::Retry,
                format!(
                    "another process has been fetching Kafka for {FETCH_LIMIT:?}; it holds {}",
                    lock_path.display()
                ),
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if jars(home).is_dir() {
        return Ok(()); // the process that held the lock has fetched them
    }

    let pom = home.join("pom.xml");
    fs::write(&pom, POM.replace("@KAFKA_VERSION@", KAFKA_VERSION)).map_err(|error| failed("write", &pom, error))?;
    let partial = home.join("libs.partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(|error| failed("remove", &partial, error))?;
    }
    let mut maven = Command::new("mvn");
    maven
        .args(["--batch-mode", "--quiet", "--no-transfer-progress", "--file"])
        .arg(&pom)
        .args([COPY_GOAL, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()));
    let output = run_bounded(maven, FETCH_LIMIT).map_err(|error| missing_or(error, "Maven (mvn)"))?;
    if !output.status.success() {
        return Err(Error::new(
            ErrorKind::Retry,
            format!("Maven could not fetch Kafka {KAFKA_VERSION} ({}):\n{}", output.status, output.tail()),
        ));
    }
    fs::rename(&partial, jars(home)).map_err(|error| failed("rename", &partial, error))
}

/// An error that a program could not be started, in words that say how to get it.
pub(crate) fn missing_or(error: std::io::Error, program: &str) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorKind::Install,
            format!(
                "{program} is not installed, and a test against a real Apache Kafka needs it. Run `make setup` in Millpond's \
                 repository, or on Debian: apt-get install default-jre-headless maven (Java 17 or newer)"
            ),
        ),
        std::io::ErrorKind::TimedOut => {
            Error::new(ErrorKind::Retry, format!("{program} did not end in time")).because(error)
        }
        _ => Error::new(ErrorKind::Failed, format!("cannot run {program}")).because(error),
    }
}
