//! A TCP proxy before a Kafka broker that can hold up, cut, swallow and repeat what goes through it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Dice;
use crate::error::{Error, ErrorKind, Result};

/// How long an answer to a request that was delivered late may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Nothing of Kafka's is longer.
const FRAME_LIMIT_BYTES: u32 = 256 << 20;

/// A kind of request of the Kafka protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Records.
    Produce,
    /// Partitions join a transaction.
    AddPartitions,
    /// Offsets of the input join a transaction.
    Offsets,
    /// A transaction is committed or aborted.
    EndTransaction,
}

impl Request {
    fn number(self) -> i16 {
        match self {
            Request::Produce => 0,
            Request::AddPartitions => 24,
            Request::Offsets => 28,
            Request::EndTransaction => 26,
        }
    }
}

/// Runs until it is dropped; connections that are open then go with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    delay_us: AtomicU64,
    refuses: AtomicBool,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    target: Option<SocketAddr>,
    trap: Option<(i16, Trap)>,
    /// A request that went into the trap; or of which the answer did.
    caught: Option<Vec<u8>>,
    /// When an answer has been lost, no connection comes about any more.
    goes_away: bool,
    connections: Vec<TcpStream>,
    /// Requests that have gone to the broker, by their number.
    passed: BTreeMap<i16, u64>,
}

/// The request of a connection whose answer is to be lost, by its correlation id.
type Lost = Mutex<Option<([u8; 4], Vec<u8>)>>;

/// What happens to the next request of a kind.
#[derive(Clone, Copy, Debug)]
enum Trap {
    KeepBack,
    LoseAnswer,
    Repeat,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1; forwards nothing until it knows [where to](Proxy::forward_to).
    ///
    /// # Errors
    /// [`ErrorKind::Retry`]: there is no port.
    pub fn listen() -> Result<Self> {
        let failed =
            |error: io::Error| Error::new(ErrorKind::Retry, "a proxy cannot listen on 127.0.0.1").because(error);
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared: Arc<Shared> = Arc::default();
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("proxy".into())
            .spawn(move || {
                for client in listener.incoming() {
                    if of_thread.ended.load(Ordering::Relaxed) {
                        return;
                    }
                    // Refused: the connection ends as soon as it has come about.
                    let Ok(client) = client else { continue };
                    if !of_thread.refuses.load(Ordering::Relaxed) {
                        let shared = Arc::clone(&of_thread);
                        thread::spawn(move || serve(client, &shared));
                    }
                }
            })
            .map_err(failed)?;
        Ok(Proxy { address, shared })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the broker is.
    pub fn forward_to(&self, broker: SocketAddr) {
        self.shared.lock().target = Some(broker);
    }

    /// Every request and every answer is held up for a random time up to this; zero ends it.
    pub fn delay(&self, up_to: Duration) {
        self.shared.delay_us.store(up_to.as_micros() as u64, Ordering::Relaxed);
    }

    /// Cuts all connections that are open now; clients may connect again at once.
    pub fn cut(&self) {
        for connection in self.shared.lock().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Cuts all connections and lets none come about, until it is told otherwise.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
        if refuses {
            self.cut();
        }
    }

    /// The next request of a kind does not reach the broker, and its connection is closed; [`deliver`](Proxy::deliver) sends it
    /// later, when nobody waits for it any more.
    pub fn keep_back(&self, next: Request) {
        self.set(next, Trap::KeepBack);
    }

    /// The next request of a kind reaches the broker and is answered, but the client's connection is closed in place of the answer.
    pub fn lose_answer(&self, next: Request) {
        self.set(next, Trap::LoseAnswer);
    }

    /// As [`lose_answer`](Proxy::lose_answer); and in the same moment [`refuse`](Proxy::refuse) begins, so that the request cannot be made again.
    pub fn lose_answer_and_refuse(&self, next: Request) {
        self.set(next, Trap::LoseAnswer);
        self.shared.lock().goes_away = true;
    }

    /// The next request of a kind goes through, and a copy of it is kept for [`deliver`](Proxy::deliver).
    pub fn repeat(&self, next: Request) {
        self.set(next, Trap::Repeat);
    }

    fn set(&self, next: Request, trap: Trap) {
        let mut state = self.shared.lock();
        (state.trap, state.caught, state.goes_away) = (Some((next.number(), trap)), None, false);
    }

    /// Whether the request that was waited for has come; for a lost answer, whether the broker has answered.
    pub fn has_caught(&self) -> bool {
        self.shared.lock().caught.is_some()
    }

    /// How many requests of a kind have gone to the broker.
    pub fn passed(&self, request: Request) -> u64 {
        self.shared.lock().passed.get(&request.number()).copied().unwrap_or(0)
    }

    /// What was kept reaches the broker now, on a connection of its own; returns when the broker has answered, or closed the connection.
    /// Nothing happens if nothing was caught.
    ///
    /// # Errors
    /// [`ErrorKind::Retry`]: the broker is away, or does not answer.
    pub fn deliver(&self) -> Result<()> {
        let (frame, target) = {
            let mut state = self.shared.lock();
            (state.caught.take(), state.target)
        };
        let (Some(frame), Some(target)) = (frame, target) else { return Ok(()) };
        let deliver = || {
            let mut broker = TcpStream::connect_timeout(&target, ANSWER_LIMIT)?;
            broker.set_read_timeout(Some(ANSWER_LIMIT))?;
            broker.write_all(&frame)?;
            match read_frame(&mut broker) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                // A connection that is closed is an answer too.
                _ => Ok(()),
            }
        };
        deliver().map_err(|error: io::Error| {
            Error::new(ErrorKind::Retry, format!("a request could not be delivered to {target}")).because(error)
        })
    }

    /// Forgets traps, delays and refusals: everything goes through.
    pub fn calm(&self) {
        self.delay(Duration::ZERO);
        self.refuse(false);
        let mut state = self.shared.lock();
        (state.trap, state.caught, state.goes_away) = (None, None, false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that listens.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delay is the fault: this waits for nothing.
    fn hold_up(&self, dice: &mut Dice) {
        let up_to = self.delay_us.load(Ordering::Relaxed);
        if up_to > 0 {
            thread::sleep(Duration::from_micros(dice.below(up_to)));
        }
    }
}

fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let Some(target) = shared.lock().target else { return };
    let Ok(broker) = TcpStream::connect(target) else { return };
    let clones = [client.try_clone(), broker.try_clone(), client.try_clone(), broker.try_clone()];
    let [Ok(client_again), Ok(broker_again), Ok(to_client), Ok(answers)] = clones else { return };
    for socket in [&client, &broker] {
        // What librdkafka does too: a frame that goes in two pieces waits for nobody.
        let _ = socket.set_nodelay(true);
    }
    {
        let mut state = shared.lock();
        state.connections.retain(|connection| connection.peer_addr().is_ok());
        state.connections.extend([client_again, broker_again]);
    }
    // The correlation id of the request whose answer is to be lost.
    let lost: Arc<Lost> = Arc::default();
    let back = {
        let (shared, lost) = (Arc::clone(shared), Arc::clone(&lost));
        thread::spawn(move || forward_answers(answers, to_client, &shared, &lost))
    };
    forward_requests(client, broker, shared, &lost);
    let _ = back.join();
}

/// Length and all that follows.
fn read_frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let bytes = u32::from_be_bytes(length);
    if bytes > FRAME_LIMIT_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {bytes} bytes")));
    }
    let mut frame = length.to_vec();
    frame.resize(4 + bytes as usize, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn forward_answers(mut broker: TcpStream, mut client: TcpStream, shared: &Shared, lost: &Lost) {
    let mut dice = Dice::new(1);
    while let Ok(frame) = read_frame(&mut broker) {
        let mut lost = lost.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((correlation, _)) = &*lost
            && frame.get(4..8) == Some(&correlation[..])
        {
            let mut state = shared.lock();
            state.caught = lost.take().map(|(_, request)| request);
            if state.goes_away {
                shared.refuses.store(true, Ordering::Relaxed);
                for connection in state.connections.drain(..) {
                    let _ = connection.shutdown(Shutdown::Both);
                }
            }
            break;
        }
        drop(lost);
        shared.hold_up(&mut dice);
        if client.write_all(&frame).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

fn forward_requests(mut client: TcpStream, mut broker: TcpStream, shared: &Shared, lost: &Lost) {
    let mut dice = Dice::new(2);
    while let Ok(frame) = read_frame(&mut client) {
        let kind = frame.get(4..6).map_or(-1, |kind| i16::from_be_bytes([kind[0], kind[1]]));
        let trap = {
            let mut state = shared.lock();
            state.trap.take_if(|(wanted, _)| *wanted == kind).map(|(_, trap)| trap)
        };
        match trap {
            Some(Trap::KeepBack) => {
                shared.lock().caught = Some(frame);
                break;
            }
            Some(Trap::LoseAnswer) => {
                let correlation = frame.get(8..12).and_then(|id| id.try_into().ok()).unwrap_or_default();
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some((correlation, frame.clone()));
            }
            Some(Trap::Repeat) => shared.lock().caught = Some(frame.clone()),
            None => {}
        }
        shared.hold_up(&mut dice);
        if broker.write_all(&frame).is_err() {
            break;
        }
        *shared.lock().passed.entry(kind).or_default() += 1;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that answers each request with its correlation id, and counts the commits it gets.
    fn broker() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, commits) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&commits);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, counted) = (client.unwrap(), Arc::clone(&counted));
                thread::spawn(move || {
                    while let Ok(frame) = read_frame(&mut client) {
                        counted.fetch_add(u64::from(frame[4..6] == [0, 26]), Ordering::SeqCst);
                        client.write_all(&[&[0, 0, 0, 4], &frame[8..12]].concat()).unwrap();
                    }
                });
            }
        });
        (address, commits)
    }

    fn ask(client: &mut TcpStream, kind: u8, correlation: u8) -> io::Result<Vec<u8>> {
        client.write_all(&[0, 0, 0, 8, 0, kind, 0, 0, 0, 0, 0, correlation])?;
        read_frame(client)
    }

    fn proxied() -> (Proxy, TcpStream, Arc<AtomicU64>) {
        let (address, commits) = broker();
        let proxy = Proxy::listen().unwrap();
        proxy.forward_to(address);
        let client = TcpStream::connect(proxy.address()).unwrap();
        (proxy, client, commits)
    }

    #[test]
    fn a_request_that_is_kept_back_arrives_when_it_is_delivered_and_its_client_is_cut_off() {
        let (proxy, mut client, commits) = proxied();
        assert_eq!(ask(&mut client, 26, 1).unwrap(), [0, 0, 0, 4, 0, 0, 0, 1]);
        proxy.keep_back(Request::EndTransaction);
        assert_eq!(ask(&mut client, 0, 2).unwrap()[7], 2, "another kind goes through");
        assert!(ask(&mut client, 26, 3).is_err());
        assert!(proxy.has_caught());
        assert_eq!((commits.load(Ordering::SeqCst), proxy.passed(Request::EndTransaction)), (1, 1));
        proxy.deliver().unwrap();
        assert_eq!(commits.load(Ordering::SeqCst), 2);
        assert!(!proxy.has_caught());
    }

    #[test]
    fn a_request_whose_answer_is_lost_has_arrived() {
        let (proxy, mut client, commits) = proxied();
        proxy.lose_answer(Request::EndTransaction);
        assert!(ask(&mut client, 26, 9).is_err());
        assert!(proxy.has_caught());
        assert_eq!(commits.load(Ordering::SeqCst), 1);
        let mut again = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(ask(&mut again, 26, 10).unwrap()[7], 10);
    }

    #[test]
    fn a_repeated_request_arrives_twice_and_is_answered_once() {
        let (proxy, mut client, commits) = proxied();
        proxy.repeat(Request::EndTransaction);
        assert_eq!(ask(&mut client, 26, 4).unwrap()[7], 4);
        proxy.deliver().unwrap();
        assert_eq!(commits.load(Ordering::SeqCst), 2);
        assert_eq!(ask(&mut client, 0, 5).unwrap()[7], 5);
    }

    #[test]
    fn what_is_refused_is_cut_off_until_it_is_calm_again() {
        let (proxy, mut client, _) = proxied();
        assert!(ask(&mut client, 0, 1).is_ok());
        proxy.refuse(true);
        assert!(ask(&mut client, 0, 2).is_err());
        let refused = TcpStream::connect(proxy.address()).and_then(|mut client| ask(&mut client, 0, 3));
        assert!(refused.is_err());
        proxy.calm();
        assert!(ask(&mut TcpStream::connect(proxy.address()).unwrap(), 0, 4).is_ok());
    }
}
