//! What befalls a simulated world, drawn from its seed: clients that come and go, and whatever can go wrong around them.

use super::client::{Client, STAYS};
use super::record::{Happened, What};
use super::rules;
use super::world::World;
use crate::actors::host::{fail_at, spawn_here};
use crate::pki::entropy::seeded::Draws;
use std::sync::Arc;
use std::time::Duration;

/// When the last of the script has happened and the last client has left: what is open then will not end by itself.
const ALL_LEFT: Duration = Duration::from_secs(60).saturating_add(STAYS);
/// For a node without clients to see that it has no sessions.
const DRAINED_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
enum Act {
    /// Each node hears after so many milliseconds, or never.
    Publish {
        rules: usize,
        delays: Vec<Option<u64>>,
    },
    KillPostgres,
    /// And it is back after so many milliseconds.
    CutTunnel {
        agent: usize,
        back_after: u64,
    },
    Fail {
        actor: &'static str,
        after: u32,
    },
    Drain {
        node: usize,
    },
    EndAll {
        node: usize,
    },
    /// The agent's actors end in their order, whatever they are at.
    Stop {
        agent: usize,
    },
}

/// Those that may panic: the permanent ones, and each kind of temporary one.
const FAILING: [&str; 9] = [
    "proxy-sessions",
    "agent-sessions",
    "connection#",
    "upstream#",
    "agent#",
    "cancels",
    "upstream-cancels",
    "tunnels",
    "agent-policy",
];

fn draw_act(draws: &mut Draws, agents: usize) -> Act {
    let node = draws.below(agents as u64 + 1) as usize;
    match draws.below(21) {
        0..8 => Act::Publish {
            rules: draws.below(rules::COUNT) as usize,
            delays: (0..=agents)
                .map(|_| {
                    (!draws.percent(10)).then(|| [0, 0, draws.below(20), draws.below(400)][draws.below(4) as usize])
                })
                .collect(),
        },
        8..10 => Act::KillPostgres,
        10..13 => Act::CutTunnel {
            agent: draws.below(agents as u64) as usize,
            back_after: draws.below(3_000),
        },
        13..18 => Act::Fail {
            actor: FAILING[draws.below(FAILING.len() as u64) as usize],
            after: draws.below(15) as u32,
        },
        18 => Act::Drain { node },
        19 => Act::EndAll { node },
        _ => Act::Stop {
            agent: draws.below(agents as u64) as usize,
        },
    }
}

/// Most often while a client is on its way into its session, where the most can go wrong.
fn draw_time(draws: &mut Draws, begins: &[u64]) -> u64 {
    let begin = begins[draws.below(begins.len() as u64) as usize];
    match draws.below(10) {
        0..3 => begin,
        3..7 => begin + draws.below(40),
        _ => draws.below(9_000),
    }
}

/// What came of a world.
pub struct Outcome {
    pub happened: Vec<Happened>,
    /// What was still there when everybody had left.
    pub left_over: Vec<String>,
}

/// Plays the script of this seed to its end.
pub async fn play(seed: u64) -> Outcome {
    let mut draws = Draws::new(seed, 20);
    let world = World::start(seed).await;
    let (proxy_holders, agent_holders) = holders(&world);
    let (mut running, mut begins) = (Vec::new(), Vec::new());
    for number in 1..=3 + draws.below(6) {
        let client = Client::drawn(number, &mut draws);
        begins.push(client.begins);
        running.push(spawn_here(client.run(world.clone())));
    }
    for _ in 0..draws.below(7) {
        let (at, act) = (draw_time(&mut draws, &begins), draw_act(&mut draws, world.agents.len()));
        let world = world.clone();
        running.push(spawn_here(async move {
            tokio::time::sleep(Duration::from_millis(at)).await;
            world.record.note(What::Act(format!("{act:?}")));
            carry_out(act, &world).await;
        }));
    }
    tokio::time::sleep(ALL_LEFT).await;
    drop(running);
    let mut left_over = Vec::new();
    for node in 0..=world.agents.len() {
        if !world.drain(node, DRAINED_WITHIN).await {
            left_over.push(format!("node {node} still has sessions"));
        }
    }
    // An agent that was stopped holds less than it did.
    let (of_proxy, of_agents) = holders(&world);
    if of_proxy > proxy_holders || of_agents > agent_holders {
        left_over.push("a connection's actor still holds what it needs".to_owned());
    }
    Outcome {
        happened: world.record.all(),
        left_over,
    }
}

/// How many hold what connections need: their actors and their open sessions.
fn holders(world: &World) -> (usize, usize) {
    let agents = world.agents.iter().map(|agent| Arc::strong_count(&agent.parts)).sum();
    (Arc::strong_count(&world.proxy_parts), agents)
}

async fn carry_out(act: Act, world: &Arc<World>) {
    match act {
        Act::Publish { rules, delays } => {
            let version = world.next_version();
            let mut heard = Vec::new();
            for (node, delay) in delays.into_iter().enumerate() {
                let (Some(delay), world) = (delay, world.clone()) else {
                    continue;
                };
                heard.push(spawn_here(async move {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                    world.publish(node, version, rules).await;
                }));
            }
            for node in heard {
                let _actor_failed = node.join().await;
            }
        }
        Act::KillPostgres => world.postgres.kill(),
        Act::CutTunnel { agent, back_after } => {
            if world.cut_tunnel(agent) {
                tokio::time::sleep(Duration::from_millis(back_after)).await;
                world.connect_tunnel(agent).await;
            }
        }
        Act::Fail { actor, after } => fail_at(actor, after),
        Act::Drain { node } => _ = world.drain(node, Duration::from_secs(10)).await,
        Act::EndAll { node } => world.end_all(node).await,
        Act::Stop { agent } => world.stop(agent).await,
    }
}
