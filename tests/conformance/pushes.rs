//! Pushes whose fate is in doubt (hard case H26): made again under their number, they count once.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_core::Stream;
use millpond_core::source::{Pusher, channel};
use millpond_core::{ErrorKind, Running};

use crate::support::*;

/// A pipeline that counts what is pushed.
fn start(bench: &Bench) -> (Running, Pusher<String>) {
    let (pusher, events) = channel::<String>();
    let context = bench.builder().checkpoint_interval(Duration::from_secs(2)).open(|graph| {
        graph
            .source("events", events)
            .map(|word| (word, 1_i64))
            .update_state_by_key("counts", |new, old| Some(old.unwrap_or(0) + new.sum()))
            .sink_json("out", bench.collection.sink());
        Ok(())
    });
    (context.expect("opened").start().expect("started"), pusher)
}

fn last(bench: &Bench, batches: u64) -> Vec<(String, i64)> {
    sorted(bench.outputs("out", batches)).pop().expect("a batch")
}

fn counted(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    of.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

#[test]
fn h26_a_push_made_again_counts_once_over_restarts_too() {
    let bench = Bench::new();
    let mut batches = 0;
    for round in 0..6_u64 {
        let (running, pusher) = start(&bench);
        // What the process before has pushed last it pushes once more: it cannot know.
        assert_eq!(pusher.last_sequence("till"), round.checked_sub(1));
        for number in [round.saturating_sub(1), round, round] {
            pusher.push_once_blocking("till", number, "coffee".to_owned()).expect("pushed");
        }
        // Another producer's numbers are its own.
        pusher.push_once_blocking("other", 7, "tea".to_owned()).expect("pushed");
        // In every second round the blocks are still waiting for a batch when the context dies.
        if round % 2 == 0 {
            bench.tick(&running);
            batches += 1;
        }
        running.stop().expect("stopped as by a crash");
    }
    let (running, _) = start(&bench);
    bench.tick(&running);
    running.stop().expect("stopped");
    assert_eq!(last(&bench, batches + 1), counted(&[("coffee", 6), ("tea", 1)]));
}

#[test]
fn h26_many_threads_that_push_the_same_numbers_count_once_each() {
    let bench = Bench::new();
    let (running, pusher) = start(&bench);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..200 {
                    pusher.push_once_blocking("till", number, "coffee".to_owned()).expect("pushed");
                }
            });
        }
    });
    bench.tick(&running);
    running.stop().expect("stopped");
    assert_eq!(last(&bench, 1), counted(&[("coffee", 200)]));
}

#[test]
fn h26_futures_of_one_producer_and_a_dropped_one_count_once() {
    let bench = Bench::new();
    let (running, pusher) = start(&bench);
    for number in 0..100_u64 {
        let mut push = pin!(pusher.push_once("till", number, "coffee".to_owned()));
        for _ in 0..number % 3 {
            let _ = push.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        // Cut off before its answer, whatever became of it: then pushed again.
        pusher.push_once_blocking("till", number, "coffee".to_owned()).expect("pushed");
    }
    assert_eq!(pusher.last_sequence("till"), Some(99));
    let refused = pusher.push_once_blocking("", 1, "coffee".to_owned()).expect_err("no name");
    assert_eq!(refused.kind(), ErrorKind::Configuration);
    bench.tick(&running);
    running.stop().expect("stopped");
    assert_eq!(last(&bench, 1), counted(&[("coffee", 100)]));
}

/// Gives what it holds, and after every third record nothing at first.
struct Numbers {
    next: u32,
    end: u32,
    rested: bool,
}

impl Stream for Numbers {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<String>> {
        if self.next.is_multiple_of(3) && !self.rested {
            self.rested = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.rested = false;
        self.next += 1;
        Poll::Ready((self.next <= self.end).then(|| format!("n{}", self.next % 2)))
    }
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(LIMIT),
        }
    }
}

#[test]
fn a_stream_is_pushed_to_its_end_in_order_and_all_of_it_is_durable() {
    let bench = Bench::new();
    let (running, pusher) = start(&bench);
    let pushed = block_on(pusher.push_all(Numbers { next: 0, end: 5000, rested: false })).expect("all pushed");
    assert_eq!(pushed, 5000);
    running.stop().expect("stopped as by a crash");
    let (running, pusher) = start(&bench);
    bench.tick(&running);
    running.stop().expect("stopped");
    assert_eq!(last(&bench, 1), counted(&[("n0", 2500), ("n1", 2500)]));
    let stopped = block_on(pusher.push_all(Numbers { next: 0, end: 5, rested: false })).expect_err("it has stopped");
    assert_eq!(stopped.kind(), ErrorKind::Stopped);
}
