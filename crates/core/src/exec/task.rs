//! One attempt at one task, and what it stages until it has ended.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::accumulator;
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// Something a task does outside of itself (staged state, output): taken over when the task has ended, undone when
/// it has failed. Hard case H9: nothing of a failed try is ever visible.
pub(crate) trait Effect {
    /// # Errors
    /// What was staged is lost, partly or whole: the batch has to be recovered.
    fn keep(self: Box<Self>) -> Result<()>;
    fn undo(self: Box<Self>);
}

/// One attempt at one task. Lives on the thread that runs it.
pub(crate) struct Task {
    pub(crate) batch: BatchTime,
    pub(crate) partition: usize,
    /// The operator whose function runs, for the message of a failure.
    operator: RefCell<Option<Arc<str>>>,
    effects: RefCell<Vec<Box<dyn Effect>>>,
    /// Set by the first attempt to end, where another one may run beside it.
    claim: Option<Arc<AtomicBool>>,
    claimed: Cell<bool>,
}

impl Task {
    pub(crate) fn new(batch: BatchTime, partition: usize) -> Self {
        Task {
            batch,
            partition,
            operator: RefCell::new(None),
            effects: RefCell::new(Vec::new()),
            claim: None,
            claimed: Cell::new(false),
        }
    }

    /// One of several attempts at the same time: the first to set the claim counts.
    pub(crate) fn with_claim(mut self, claim: Option<Arc<AtomicBool>>) -> Self {
        self.claim = claim;
        self
    }

    /// Whether this attempt is the one that counts. To be asked before anything is left outside of the task that is not staged; after a
    /// `true` nothing may fail any more.
    pub(crate) fn claims(&self) -> bool {
        let Some(claim) = &self.claim else { return true };
        if !self.claimed.get() {
            self.claimed.set(!claim.swap(true, Ordering::AcqRel));
        }
        self.claimed.get()
    }

    /// Says whose function runs from here on. Called once a chunk.
    pub(crate) fn enter(&self, operator: &Arc<str>) {
        let mut current = self.operator.borrow_mut();
        match &*current {
            Some(current) if Arc::ptr_eq(current, operator) => {}
            _ => *current = Some(operator.clone()),
        }
    }

    pub(crate) fn stage(&self, effect: impl Effect + 'static) {
        self.effects.borrow_mut().push(Box::new(effect));
    }

    /// Runs the task's work, catching panics; keeps or undoes what it staged. False if another attempt counts.
    pub(crate) fn attempt(self, work: impl FnOnce(&Task) -> Result<()>) -> Result<bool> {
        let (outcome, added) = accumulator::stage(|| catch_unwind(AssertUnwindSafe(|| work(&self))));
        let outcome = outcome.unwrap_or_else(|panic| Err(panicked(&*panic)));
        let effects = self.effects.take();
        let lost = match outcome {
            Ok(()) => !self.claims(),
            Err(_) => !self.claimed.get() && self.claim.as_ref().is_some_and(|claim| claim.load(Ordering::Acquire)),
        };
        if lost {
            effects.into_iter().rev().for_each(|effect| effect.undo());
            return Ok(false);
        }
        match outcome {
            Ok(()) => {
                added.keep();
                // Half of it kept is no state to try again from.
                effects.into_iter().try_for_each(|effect| effect.keep()).map(|()| true).map_err(|error| {
                    Error::new(ErrorKind::Restart, "what a task staged could not be kept").with_source(error)
                })
            }
            Err(error) => {
                // Newest first, as they lie over each other.
                effects.into_iter().rev().for_each(|effect| effect.undo());
                let operator = self.operator.take();
                let place = match &operator {
                    Some(operator) => {
                        format!("operator `{operator}`, batch {}, partition {}", self.batch, self.partition)
                    }
                    None => format!("batch {}, partition {}", self.batch, self.partition),
                };
                Err(error.context(place))
            }
        }
    }
}

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    Error::new(ErrorKind::Program, format!("panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Note(Arc<Mutex<Vec<&'static str>>>);

    impl Effect for Note {
        fn keep(self: Box<Self>) -> Result<()> {
            self.0.lock().expect("no panic").push("kept");
            Ok(())
        }
        fn undo(self: Box<Self>) {
            self.0.lock().expect("no panic").push("undone");
        }
    }

    #[test]
    fn h9_a_failed_try_leaves_nothing_and_names_operator_batch_and_text() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let task = Task::new(BatchTime::from_ms(3000), 1);
        let outcome = task.attempt(|task| {
            task.enter(&"counts".into());
            task.stage(Note(notes.clone()));
            panic!("error in map task");
        });
        assert_eq!(*notes.lock().expect("no panic"), ["undone"]);
        let message = outcome.expect_err("it panicked").to_string();
        assert!(
            message.contains("counts") && message.contains("3000") && message.contains("error in map task"),
            "{message}"
        );

        let task = Task::new(BatchTime::from_ms(3000), 1);
        task.attempt(|task| {
            task.stage(Note(notes.clone()));
            Ok(())
        })
        .expect("it ended well");
        assert_eq!(*notes.lock().expect("no panic"), ["undone", "kept"]);
    }

    #[test]
    fn of_two_attempts_the_first_to_end_counts_and_the_other_is_undone() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let claim = Arc::new(AtomicBool::new(false));
        let attempt = |fails: bool| {
            Task::new(BatchTime::from_ms(3000), 1).with_claim(Some(claim.clone())).attempt(|task| {
                task.stage(Note(notes.clone()));
                if fails { Err(Error::new(ErrorKind::Program, "no")) } else { Ok(()) }
            })
        };
        assert!(attempt(true).is_err(), "nobody has ended yet");
        assert!(attempt(false).expect("it ended well"));
        assert!(!attempt(false).expect("it came late"));
        assert!(!attempt(true).expect("it came late, whatever became of it"));
        assert_eq!(*notes.lock().expect("no panic"), ["undone", "kept", "undone", "undone"]);
    }
}
