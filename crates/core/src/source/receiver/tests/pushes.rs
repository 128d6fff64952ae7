//! Pushes into a channel: when one is ready, and what becomes of those under way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn poll<T>(push: &mut Push<T>) -> Poll<Result<()>> {
    Pin::new(push).poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for a future on this thread.
fn block_on<T>(mut push: Push<T>) -> Result<()> {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match Pin::new(&mut push).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}

#[test]
fn a_push_is_ready_when_its_record_is_durable() {
    let world = World::new();
    let (pusher, mut source) = channel::<String>();
    assert_eq!(block_on(pusher.push("early".into())).unwrap_err().kind(), ErrorKind::Retry);
    source.start(world.start()).unwrap();
    world.log.hold();
    let mut push = pusher.push("a".into());
    assert!(poll(&mut push).is_pending());
    world.log.pass();
    block_on(push).unwrap();
    pusher.clone().push_blocking("b".into()).unwrap();
    drop(pusher.push("never polled".into()));
    assert_eq!(world.batch(&mut source, 1000), ["a", "b"]);

    drop(source); // As a crash.
    let (_, mut source) = channel::<String>();
    pusher.push_blocking("to a source that is gone".into()).unwrap_err();
    source.start(world.start()).unwrap();
    assert_eq!(world.batch(&mut source, 2000), [""; 0]);
}

#[test]
fn pushes_that_wait_together_share_a_block() {
    let world = World::new();
    let (pusher, mut source) = channel::<u64>();
    source.start(world.start()).unwrap();
    world.log.hold();
    let mut pushes: Vec<_> = (0..1000).map(|n| pusher.push(n)).collect();
    pushes.iter_mut().for_each(|push| assert!(poll(push).is_pending()));
    world.log.pass();
    pushes.into_iter().for_each(|push| block_on(push).unwrap());
    let plan = world.plan(&mut source, 1000);
    assert!(plan.blocks.len() <= 11, "{} blocks", plan.blocks.len());
    assert_eq!(collect(&mut source, &plan).unwrap().records, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_push_that_finds_no_room_waits_without_blocking() {
    let world = World::with_budget(30);
    let (pusher, mut source) = channel::<Vec<u8>>();
    source.start(world.start()).unwrap();
    block_on(pusher.push(vec![1; 20])).unwrap();
    let large = || pusher.push(vec![2; 1 << 20]);
    // Each fills a block: ten may wait, the one after them finds no room.
    let mut waiting: Vec<_> = (0..12).map(|_| large()).collect();
    waiting.iter_mut().for_each(|push| assert!(poll(push).is_pending()));
    let release = aside(move || {
        let mut records = 0;
        for time in 1.. {
            records += world.batch(&mut source, time * 1000).len();
            source.release(BatchTime::from_ms(time * 1000));
            if records == 13 {
                return records;
            }
        }
        0
    });
    waiting.into_iter().for_each(|push| block_on(push).unwrap());
    assert_eq!(release.recv_timeout(PATIENCE).unwrap(), 13);
}

#[test]
fn pushes_under_way_are_told_when_the_context_dies_and_later_ones_are_refused() {
    let world = World::new();
    let (pusher, mut source) = channel::<u64>();
    source.start(world.start()).unwrap();
    world.log.hold();
    let mut pushes: Vec<_> = (0..100).map(|n| pusher.push(n)).collect();
    pushes.iter_mut().for_each(|push| assert!(poll(push).is_pending()));
    source.stop();
    assert_eq!(pusher.push_blocking(7).unwrap_err().kind(), ErrorKind::Stopped);
    // Those that the log holds get its word, the others that of the stop.
    world.log.pass();
    for push in pushes {
        if let Err(error) = block_on(push) {
            assert_eq!(error.kind(), ErrorKind::Stopped);
        }
    }
}

#[test]
fn a_graceful_stop_logs_what_was_pushed() {
    let world = World::new();
    let (pusher, mut source) = channel::<u64>();
    source.start(world.start()).unwrap();
    world.log.hold();
    let mut push = pusher.push(1);
    assert!(poll(&mut push).is_pending());
    let stopped = aside(move || source.stop_receiving(Duration::from_secs(10)).map(|()| source));
    world.log.pass();
    let mut source = stopped.recv_timeout(PATIENCE).unwrap().unwrap();
    block_on(push).unwrap();
    assert!(source.has_waiting());
    assert_eq!(world.batch(&mut source, 1000), [1]);
    assert!(!source.has_waiting());
}

#[test]
fn fed_records_are_json_or_plain_text() {
    let (_, texts) = channel::<String>();
    let fed = texts.feed(vec!["a b".into(), "\"quoted\"".into(), "1".into()]).unwrap();
    assert_eq!(Collected::of(&*fed).unwrap().records, ["a b", "quoted", "1"]);
    let (_, numbers) = channel::<(u64, String)>();
    let fed = numbers.feed(vec!["[1,\"x\"]".into()]).unwrap();
    assert_eq!(Collected::of(&*fed).unwrap().records, [(1, "x".to_owned())]);
    let fed = numbers.feed(vec!["nonsense".into()]).unwrap();
    assert!(Collected::of(&*fed).is_err());
}
