//! The broker's process: started with a watcher that ends it when its owner dies, stopped, paused and killed by
//! signals; and bounded runs of short commands.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The shell becomes the broker (same process id) after it has left a watcher behind. The watcher reads the pipe
/// whose other end only the owner holds. A word means that the owner has taken care of everything; the end of the
/// pipe without one means that the owner is dead, however it died: then the broker and its data go too.
///
/// `PR_SET_PDEATHSIG` would fire when the *thread* ends that started the broker, and a test is such a thread.
const WATCHED: &str = r#"
exec 3<&0
{
    if ! read -r word; then
        kill -KILL $$
        # The dying broker may still be making files.
        for try in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$0" && break; sleep 0.2; done
    fi
} <&3 >/dev/null 2>&1 &
exec 3<&- </dev/null
exec "$@"
"#;

/// A running broker.
#[derive(Debug)]
pub(crate) struct Watched {
    child: Child,
    watcher: Option<ChildStdin>,
}

impl Watched {
    /// Starts `command` with its output in the file `log`. If the owner dies, it is killed and `directory` removed.
    pub(crate) fn start(command: &Command, directory: &Path, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(WATCHED).arg(directory).arg(command.get_program()).args(command.get_args());
        shell.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // A Ctrl-C at the terminal is for the owner; the broker follows by way of the watcher.
        shell.process_group(0);
        let mut child = shell.spawn()?;
        let watcher = child.stdin.take();
        Ok(Watched { child, watcher })
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // Once a process has been waited for, its id may be another's.
        if let Some(status) = self.ended()? {
            return Err(io::Error::other(format!("the process has ended ({status})")));
        }
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Asks the process to end; true if it did within the limit.
    pub(crate) fn terminate(&mut self, limit: Duration) -> io::Result<bool> {
        self.signal(Signal::TERM)?;
        wait_until(limit, || Ok(self.ended()?.is_some()))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Errors mean that the process or the watcher is gone already, which is what is wanted here.
        let _ = self.child.kill();
        if let Some(mut watcher) = self.watcher.take() {
            let _ = watcher.write_all(b"released\n");
        }
        let _ = self.child.wait();
    }
}

/// Asks again and again, without burning a core, until `condition` holds or `limit` is over.
pub(crate) fn wait_until<E>(limit: Duration, mut condition: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
    let deadline = Instant::now() + limit;
    loop {
        if condition()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a short command printed, and how it ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    stderr: String,
}

impl Finished {
    /// The last lines of what it printed, for an error.
    pub(crate) fn tail(&self) -> String {
        last_lines(&format!("{}{}", self.stdout, self.stderr), 30)
    }
}

/// Runs a command to its end, and kills it at the limit (then the error's kind is `TimedOut`).
pub(crate) fn run_bounded(mut command: Command, limit: Duration) -> io::Result<Finished> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = read_beside(child.stdout.take());
    let stderr = read_beside(child.stderr.take());
    if !wait_until(limit, || child.try_wait().map(|status| status.is_some()))? {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("killed after {limit:?}")));
    }
    let status = child.wait()?;
    let text =
        |reader: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
    Ok(Finished { status, stdout: text(stdout), stderr: text(stderr) })
}

fn read_beside(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What could be read before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// The last lines of a broker's log, for an error.
pub(crate) fn log_tail(log: &str) -> String {
    last_lines(log, 40)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
