//! The model broker of the simulations against a real one: the same random scripts of producer and reader calls, compared call by call.

use millpond_kafka::simulation::{Side, play};
use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::chaos::Dice;

/// Scripts that are always played; a fourth of all has a transaction that takes too long.
const FIXED: [u64; 3] = [1, 2, 8];
/// New ones.
const SCRIPTS: u64 = 3;
const CALLS: usize = 40;

#[test]
fn the_model_broker_says_what_a_real_one_says_to_the_same_random_scripts() {
    let broker = KafkaBroker::shared();
    let chosen = std::env::var("MILLPOND_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = chosen.unwrap_or_else(Dice::seed_of_now);
    println!("MILLPOND_SEED={first}");
    let new = (0..SCRIPTS).map(|number| first.wrapping_add(number));
    let scripts: Vec<u64> = FIXED.into_iter().chain(new).collect();
    let (mut committed, mut shut_out) = (0, 0);
    for seed in scripts {
        let name = format!("model-{}", std::process::id());
        let model = play(seed, CALLS, &name, Side::Model).unwrap();
        let real = play(seed, CALLS, &name, Side::Broker(broker.bootstrap_servers())).unwrap();
        let differs = model.iter().zip(&real).position(|(model, real)| model != real);
        if let Some(at) = differs {
            let before = model[..at].join("\n  ");
            let after = |calls: &[String]| calls[at..].join("\n  ");
            panic!("SEED={seed}:\n  {before}\nmodel:\n  {}\nreal:\n  {}", after(&model), after(&real));
        }
        let count = |what: &str| model.iter().filter(|call| call.contains(what)).count();
        committed += count("commit: done");
        shut_out += count("shut out");
    }
    assert!(committed > 0 && shut_out > 0, "{committed} commits, {shut_out} times shut out");
}
