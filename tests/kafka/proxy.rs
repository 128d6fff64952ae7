//! A TCP proxy before a broker that can keep a request of one kind back, close its connection, and deliver it later.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

/// The number of EndTxn in the protocol.
const END_TXN: i16 = 26;

/// Runs until the test process ends.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: OnceLock<SocketAddr>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keep_next: bool,
    kept: Option<Kept>,
}

/// A request with the connection to the broker on which it would have gone.
struct Kept {
    frame: Vec<u8>,
    broker: TcpStream,
    /// Passes answers on; ends with the next one, which nobody waits for any more.
    answers: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared: Arc<Shared> = Arc::default();
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                thread::spawn(move || serve(client, &shared));
            }
        });
        Proxy { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn forward_to(&self, broker: SocketAddr) {
        self.shared.target.set(broker).expect("told once");
    }

    /// The next commit of a transaction does not reach the broker, and its connection is closed.
    pub(crate) fn keep_back_next_commit(&self) {
        let mut state = self.shared.state.lock().expect("no panic");
        (state.keep_next, state.kept) = (true, None);
    }

    pub(crate) fn has_kept_back(&self) -> bool {
        self.shared.state.lock().expect("no panic").kept.is_some()
    }

    /// What was kept back reaches the broker now; returns when the broker has answered, or closed the connection.
    pub(crate) fn deliver_kept_back(&self) {
        let kept = self.shared.state.lock().expect("no panic").kept.take();
        let Kept { frame, mut broker, answers } = kept.expect("a request was kept back");
        broker.write_all(&frame).expect("the broker still listens");
        crate::input::eventually("the broker's answer", || answers.is_finished().then_some(()));
    }
}

fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let Some(target) = shared.target.get() else { return };
    let Ok(broker) = TcpStream::connect(target) else { return };
    let (mut answers, mut to_client) = (broker.try_clone().expect("a clone"), client.try_clone().expect("a clone"));
    let back = thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(count) = answers.read(&mut buffer) {
            if count == 0 || to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    forward_requests(client, broker, back, shared);
}

fn forward_requests(mut client: TcpStream, mut broker: TcpStream, answers: JoinHandle<()>, shared: &Shared) {
    loop {
        let mut length = [0; 4];
        if client.read_exact(&mut length).is_err() {
            break;
        }
        let mut frame = length.to_vec();
        frame.resize(4 + u32::from_be_bytes(length) as usize, 0);
        if client.read_exact(&mut frame[4..]).is_err() {
            break;
        }
        if i16::from_be_bytes([frame[4], frame[5]]) == END_TXN {
            let mut state = shared.state.lock().expect("no panic");
            if std::mem::take(&mut state.keep_next) {
                state.kept = Some(Kept { frame, broker, answers });
                // The connection to the broker stays open for the delivery.
                let _ = client.shutdown(Shutdown::Both);
                return;
            }
        }
        if broker.write_all(&frame).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
    let _ = answers.join();
}
