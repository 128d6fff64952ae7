//! The driver of a context as an actor of a simulation: its recovery, then one step for each message or batch time.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::context::StreamingContext;
use super::driver::{Driver, Flow, Message};
use crate::simulation::Actor;

/// The driver of a context in a simulation, from its recovery on.
pub(super) enum Simulated {
    Opened(Box<StreamingContext>, Receiver<Message>, Sender<Message>),
    Running(Box<Driver>),
    Over,
}

impl Simulated {
    fn go_on(self) -> Simulated {
        let (driver, flow) = match self {
            Simulated::Opened(context, inbox, outbox) => {
                let Some(mut driver) = context.recover(inbox, outbox) else { return Simulated::Over };
                let flow = driver.begin();
                (Box::new(driver), flow)
            }
            Simulated::Running(mut driver) => {
                let message = driver.inbox.try_recv().ok();
                let flow = driver.step(message);
                (driver, flow)
            }
            Simulated::Over => return Simulated::Over,
        };
        match flow {
            Flow::Continue(()) => Simulated::Running(driver),
            Flow::Break(failure) => {
                driver.finish(failure);
                Simulated::Over
            }
        }
    }
}

impl Actor for Simulated {
    fn is_ready(&self) -> bool {
        match self {
            Simulated::Opened(..) => true,
            Simulated::Running(driver) => !driver.inbox.is_empty(),
            Simulated::Over => false,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self {
            Simulated::Running(driver) => driver.due(),
            _ => None,
        }
    }

    fn step(&mut self) -> bool {
        *self = std::mem::replace(self, Simulated::Over).go_on();
        !matches!(self, Simulated::Over)
    }
}
