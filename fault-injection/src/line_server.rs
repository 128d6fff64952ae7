//! A TCP server of lines that keeps what it has sent: a client says how many lines it has, and gets those after them as they come.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::Result;

/// How often a connection that has sent everything looks whether its server is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs until it is dropped.
#[derive(Debug)]
pub struct LineServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    more: Condvar,
    ended: AtomicBool,
}

impl LineServer {
    /// A server without lines.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared: Arc<Shared> = Arc::default();
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if of_thread.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&of_thread)) else { continue };
                // A client that is killed in the midst is none of our errors.
                thread::spawn(move || serve(client, &shared));
            }
        });
        Ok(LineServer { address, shared })
    }

    /// Where it is.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Gives more lines.
    pub fn give(&self, lines: impl IntoIterator<Item = String>) {
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner).extend(lines);
        self.shared.more.notify_all();
    }
}

impl Drop for LineServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut position = [0; 8];
    client.read_exact(&mut position)?;
    let mut sent = u64::from_le_bytes(position) as usize;
    while !shared.ended.load(Ordering::Relaxed) {
        let text: String = {
            let lines = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = shared.more.wait_timeout_while(lines, LOOK_EVERY, |lines| lines.len() <= sent);
            let (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let new = lines.get(sent..).unwrap_or_default();
            sent += new.len();
            new.iter().map(|line| format!("{line}\n")).collect()
        };
        client.write_all(text.as_bytes())?;
    }
    Ok(())
}
