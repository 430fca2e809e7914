//! A cluster's life in which everything goes wrong: nodes, Redis and the ways between them are killed, stopped, drained
//! and cut while people come, go and speak; after each step all must be as it is to be.
//!
//! `ANTIPHON_CHAOS_S` says for how many seconds (120 unless said), `ANTIPHON_CHAOS_SEED` which list of steps: a number, or
//! `random`. Unless said it is always the same, so that a failure is that of a change and not of the day.

mod checks;
mod journal;
mod model;
mod people;
mod report;
mod seen;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod talk;
mod world;

use std::time::{Duration, Instant};

use antiphon_core::prng::Prng;

use self::{
    steps::{Sizes, Steps},
    world::{CHANNELS, World},
};

/// What the end needs of the time: dead nodes are swept after a grace of 30 s.
const END: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_outlives_a_life_of_faults() {
    let seed = match std::env::var("ANTIPHON_CHAOS_SEED").as_deref() {
        Ok("random") => u64::from(uuid::Uuid::new_v4().as_fields().0),
        _ => number("ANTIPHON_CHAOS_SEED").unwrap_or(1),
    };
    let duration = Duration::from_secs(number("ANTIPHON_CHAOS_S").unwrap_or(120));
    println!("ANTIPHON_CHAOS_SEED={seed} ANTIPHON_CHAOS_S={}", duration.as_secs());
    let begun = Instant::now();
    let mut prng = Prng::new(seed);
    let nodes = 3 + usize::try_from(prng.below(3)).expect("few");
    let mut world = World::begin(nodes).await;
    let sizes = Sizes { nodes, channels: CHANNELS, wanderers: world.wanderers() };
    let mut steps = Steps::new(prng, sizes);
    println!("{nodes} nodes, {} people", world.people.len());
    let steps_end = duration.saturating_sub(END);
    for index in 0.. {
        let step = steps.next();
        println!("{:>6.1} s, step {index}: {step}", begun.elapsed().as_secs_f64());
        if let Err(error) = world.carry_out(index, &step).await {
            world.people.iter().for_each(|person| world.report.gone(person));
            println!("{}", world.report);
            checks::no_violation(&world).unwrap_or_else(|violation| println!("{violation}"));
            checks::dropped(&world).await.iter().for_each(|dropped| println!("{dropped}"));
            step.timeline().iter().for_each(|(at_ms, event)| println!("{at_ms:>6} ms {event:?}"));
            panic!("seed {seed}, step {index} ({step}): {error}");
        }
        if begun.elapsed() >= steps_end {
            break;
        }
    }
    let left = checks::nothing_is_left(&mut world).await;
    println!("{:>6.1} s, the end\n{}", begun.elapsed().as_secs_f64(), world.report);
    left.unwrap_or_else(|error| panic!("seed {seed}, in the end: {error}"));
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {value:?}")))
}
