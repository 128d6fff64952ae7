//! What the driver tells listeners, metrics and rate controllers of the batches under way. It decides nothing of the
//! protocol: the state machine does not know of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::listen::{AccumulatorInfo, BatchInfo, Bus, Event, InputInfo, ReceiverInfo};
use crate::log::BatchPlan;
use crate::rate::{Backpressure, RateController};
use crate::source::SourceEvent;
use crate::stream::AnySource;
use crate::time::BatchTime;

use super::meters;

/// The batches submitted and not completed, and who is told of them.
pub(crate) struct Observer {
    bus: Arc<Bus>,
    sources: Vec<SourceWatch>,
    under_way: BTreeMap<BatchTime, UnderWay>,
    /// By source; empty without rate control.
    rates: Vec<RateController>,
}

struct UnderWay {
    info: BatchInfo,
    committed: bool,
    /// Its state is being frozen for a checkpoint, which counts into its processing delay.
    freezing: bool,
}

impl Observer {
    /// # Errors
    /// The settings of rate control are wrong.
    pub(crate) fn new(
        bus: Arc<Bus>,
        sources: &[Box<dyn AnySource>],
        backpressure: Option<&Backpressure>,
        interval: std::time::Duration,
    ) -> Result<Self> {
        let controller = |control: &Backpressure| -> Result<Vec<RateController>> {
            sources.iter().map(|source| control.controller(source.name(), interval)).collect()
        };
        let rates = backpressure.map(controller).transpose()?.unwrap_or_default();
        let watch = |number: usize, source: &dyn AnySource| SourceWatch {
            bus: bus.clone(),
            number,
            name: source.name().clone(),
            kind: source.kind(),
            receives: Arc::default(),
        };
        let sources = sources.iter().enumerate().map(|(number, source)| watch(number, &**source)).collect();
        Ok(Observer { bus, sources, under_way: BTreeMap::new(), rates })
    }

    pub(crate) fn source(&self, number: usize) -> &SourceWatch {
        &self.sources[number]
    }

    pub(crate) fn live(&self, now_ms: u64) {
        self.bus.send(Event::Started(now_ms));
    }

    /// What the next batch may take from a source.
    pub(crate) fn max_records(&self, source: usize) -> Option<u64> {
        self.rates.get(source)?.max_records()
    }

    /// The plan of a batch is durable.
    pub(crate) fn submitted(&mut self, plan: &BatchPlan, now_ms: u64) {
        let input = |source: &SourceWatch| {
            let planned = plan.sources.iter().find(|planned| *planned.source == *source.name);
            let records = planned.map_or(0, |planned| planned.plan.records);
            let max_records = self.max_records(source.number);
            InputInfo { max_records, ..InputInfo::new(source.number, source.name.clone(), records) }
        };
        let mut info = BatchInfo::submitted(plan.last, self.sources.iter().map(input).collect(), now_ms);
        info.first = plan.first;
        self.bus.send(Event::BatchSubmitted(info.clone()));
        self.under_way.insert(plan.last, UnderWay { info, committed: false, freezing: false });
    }

    /// A batch begins to be computed; whether listeners hear of it: not if it was committed before and is replayed.
    pub(crate) fn started(&mut self, batch: BatchTime, now_ms: u64) -> bool {
        let Some(under_way) = self.under_way.get_mut(&batch) else { return false };
        if under_way.info.start_ms.is_none() {
            under_way.info.start_ms = Some(now_ms);
            self.bus.send(Event::BatchStarted(under_way.info.clone()));
        }
        true
    }

    /// A batch has been computed, and has added this to the accumulators.
    pub(crate) fn computed(&mut self, batch: BatchTime, accumulators: Vec<AccumulatorInfo>) {
        if let Some(under_way) = self.under_way.get_mut(&batch) {
            under_way.info.accumulators = accumulators;
        }
    }

    pub(crate) fn freezing(&mut self, batch: BatchTime) {
        if let Some(under_way) = self.under_way.get_mut(&batch) {
            under_way.freezing = true;
        }
    }

    pub(crate) fn frozen(&mut self, batch: BatchTime, now_ms: u64) {
        if let Some(under_way) = self.under_way.get_mut(&batch) {
            under_way.freezing = false;
            self.complete_if_done(batch, now_ms);
        }
    }

    pub(crate) fn committed(&mut self, batch: BatchTime, now_ms: u64) {
        if let Some(under_way) = self.under_way.get_mut(&batch) {
            under_way.committed = true;
            self.complete_if_done(batch, now_ms);
        }
    }

    /// After a recovery inside of the process: what was in doubt may turn out to be committed.
    pub(crate) fn recovered(&mut self, committed: BatchTime, now_ms: u64) {
        self.under_way.values_mut().for_each(|under_way| under_way.freezing = false);
        let done: Vec<BatchTime> = self.under_way.range(..=committed).map(|(batch, _)| *batch).collect();
        done.into_iter().for_each(|batch| self.committed(batch, now_ms));
    }

    /// The context stops because of an error: the batch that runs has failed with it.
    pub(crate) fn stopped(&mut self, failure: Option<&Error>, now_ms: u64) {
        let running = self.under_way.iter().find(|(_, under_way)| under_way.info.start_ms.is_some());
        let (Some(error), Some((&batch, _))) = (failure, running) else { return };
        if let Some(mut under_way) = self.under_way.remove(&batch) {
            under_way.info.end_ms = Some(now_ms);
            under_way.info.failure = Some(error.to_string());
            self.tell_completed(under_way.info);
        }
    }

    fn complete_if_done(&mut self, batch: BatchTime, now_ms: u64) {
        let done = |under_way: &UnderWay| under_way.committed && !under_way.freezing;
        if !self.under_way.get(&batch).is_some_and(done) {
            return;
        }
        let Some(UnderWay { mut info, .. }) = self.under_way.remove(&batch) else { return };
        info.end_ms = Some(now_ms);
        if let (Some(processing), Some(scheduling)) = (info.processing_delay_ms(), info.scheduling_delay_ms()) {
            for (controller, input) in self.rates.iter_mut().zip(&info.inputs) {
                controller.completed(now_ms, input.records, processing, scheduling);
                if let Some(rate) = controller.rate() {
                    meters::rate(&input.source, rate);
                }
            }
        }
        self.tell_completed(info);
    }

    /// The batch with what its output operations left.
    fn tell_completed(&self, mut info: BatchInfo) {
        let heard = self.bus.progress().batch(info.time);
        info.output_operations = heard.map(|heard| heard.output_operations).unwrap_or_default();
        meters::completed(&info);
        self.bus.send(Event::BatchCompleted(info));
    }
}

/// Tells listeners of one source. Cloneable, usable from any thread.
#[derive(Clone)]
pub(crate) struct SourceWatch {
    bus: Arc<Bus>,
    number: usize,
    name: Arc<str>,
    kind: &'static str,
    receives: Arc<AtomicBool>,
}

impl SourceWatch {
    pub(crate) fn started(&self) {
        if !self.receives.swap(true, Ordering::AcqRel) {
            self.bus.send(Event::ReceiverStarted(self.info(None)));
        }
    }

    pub(crate) fn stopped(&self) {
        if self.receives.swap(false, Ordering::AcqRel) {
            self.bus.send(Event::ReceiverStopped(self.info(None)));
        }
    }

    /// A source says something; gives the error if the context cannot go on with it.
    pub(crate) fn reports(&self, event: SourceEvent) -> Option<Error> {
        match event {
            SourceEvent::Started => self.started(),
            SourceEvent::Stopped => self.stopped(),
            SourceEvent::Error(error) => {
                tracing::warn!(source = %self.name, %error, "a source reports an error");
                meters::source_error(&self.name);
                self.bus.send(Event::ReceiverError(self.info(Some(error.to_string()))));
            }
            SourceEvent::Fatal(error) => {
                self.bus.send(Event::ReceiverError(self.info(Some(error.to_string()))));
                return Some(error);
            }
        }
        None
    }

    fn info(&self, error: Option<String>) -> ReceiverInfo {
        ReceiverInfo { number: self.number, source: self.name.clone(), kind: self.kind, error }
    }
}
