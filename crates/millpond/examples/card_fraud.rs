//! Flags over card payments: five payments within a minute, or one far above what the card has paid so far. A card that has
//! been silent for ten minutes is forgotten.
//!
//! Payments are made up. The function is called once a payment, in order, with the state of its card; forgetting is a call of its own.

use clap::Parser;
use millpond::prelude::*;
use millpond::source::{Queue, QueueSource};

#[derive(Parser)]
#[command(about = "Flags bursts of payments and unusual amounts, per card")]
struct Options {
    /// How many minutes of payments are made up
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

#[derive(Clone, Debug)]
struct Payment {
    card: String,
    cents: u64,
}

/// What is known of a card: payments of the last minute by batch time, and how many and how much in all.
type Card = (Vec<u64>, u64, u64);

fn flag(at: BatchTime, card: &String, payment: Option<u64>, state: &mut State<'_, Card>) -> Option<String> {
    let Some(cents) = payment else {
        // Silent for ten minutes: its state goes after this call.
        return Some(format!("{card}: forgotten"));
    };
    let (mut recent, count, sum) = state.get().cloned().unwrap_or_default();
    recent.retain(|&time| time + 60_000 > at.as_ms());
    recent.push(at.as_ms());
    let flag = if recent.len() == 5 {
        Some(format!("{card}: five payments within a minute"))
    } else if count >= 5 && cents > 20 * (sum / count) {
        Some(format!("{card}: {}.{:02} is far above its average", cents / 100, cents % 100))
    } else {
        None
    };
    state.update((recent, count + 1, sum + cents));
    flag
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let queue = Queue::new();
    (0..options.minutes * 6).for_each(|n| queue.push(made_up(n)));

    let directory = tempfile::tempdir()?;
    let context = StreamingContext::builder("card-fraud")
        .directory(directory.path().join("cards.pond"))
        .batch_interval(seconds(10))
        .open(|graph| {
            graph
                .source("payments", QueueSource::one_at_a_time(&queue).replayable())
                .map(|payment: Payment| (payment.card, payment.cents))
                .map_with_state("cards", flag)
                .timeout(minutes(10))
                .for_each_rdd(|flags, at| {
                    flags.collect()?.iter().for_each(|flag| println!("{at}  {flag}"));
                    Ok::<_, millpond::Error>(())
                });
            Ok(())
        })?;
    // All payments are there already: a graceful stop runs batch after batch without waiting for the clock.
    context.start()?.stop_gracefully()?;
    Ok(())
}

/// The payments of ten seconds: regular ones, a stolen card's burst in the fifth minute, one large amount in the twentieth.
fn made_up(n: u64) -> Vec<Payment> {
    let pay = |card: &str, cents| Payment { card: card.to_owned(), cents };
    let mut payments = vec![pay(&format!("card-{}", n % 7), 300 + n * 37 % 900)];
    if (30..36).contains(&n) {
        payments.push(pay("card-stolen", 9_900));
    }
    if n == 120 {
        payments.push(pay("card-1", 250_000));
    }
    payments
}
