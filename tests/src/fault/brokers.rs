//! Three Kafka brokers of a run's own: killed, paused, ended, cut off, and whole again.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::SHARDS;
use super::net::{Net, Place};
use crate::kafka::Cluster;
use crate::leaders::Leaders;

/// How many.
pub const BROKERS: u32 = 3;
/// How long a broker may be silent before the others go on without it (`broker.session.timeout.ms`), and what it takes
/// them to see that.
pub const SESSION: Duration = Duration::from_millis(4_500);
/// How long until all replicas are in sync and every broker leads its share, the machine being busy.
const WHOLE: Duration = Duration::from_secs(120);
/// How long a broker may take to leave in order.
const LEAVE: Duration = Duration::from_secs(30);
/// Leaders go back to their preferred brokers by themselves, and soon: an election after each return.
const EXTRA: &str = "auto.leader.rebalance.enable=true\n\
    leader.imbalance.check.interval.seconds=2\nleader.imbalance.per.broker.percentage=0\n";

/// The brokers. Dropped, they are stopped.
#[derive(Debug)]
pub struct Brokers {
    leaders: Option<Leaders>,
    cluster: Cluster,
    places: Vec<Place>,
}

impl Brokers {
    /// Starts them, in namespaces if there is a network for that.
    ///
    /// # Errors
    /// If they do not start.
    pub fn start(net: Option<&mut Net>) -> Result<Self, String> {
        let mut places = Vec::new();
        if let Some(net) = net {
            for _ in 0..BROKERS {
                places.push(net.place()?);
            }
        }
        let given: Vec<_> = places
            .iter()
            .map(|place| (place.address.to_string(), place.namespace.clone()))
            .collect();
        Ok(Self {
            leaders: None,
            cluster: Cluster::launch(BROKERS, EXTRA, None, &given)?,
            places,
        })
    }

    /// `host:port` of each, with commas.
    #[must_use]
    pub fn addresses(&self) -> &str {
        &self.cluster.brokers
    }

    /// What they are reached at, if they are in namespaces.
    #[must_use]
    pub fn places(&self) -> Vec<Ipv4Addr> {
        self.places.iter().map(|place| place.address).collect()
    }

    /// Looks at this topic's leaders from now on.
    pub fn watch(&mut self, topic: &str) {
        self.leaders = Some(Leaders::watch(self.addresses(), topic));
    }

    /// How often a partition's leader was another one than before.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.leaders.as_ref().map_or(0, Leaders::moved)
    }

    /// Kills one; they count from 0.
    pub fn kill(&self, broker: usize) {
        self.cluster.signal(number(broker), "KILL");
    }

    /// Stops one where it stands, or lets it go on.
    pub fn pause(&self, broker: usize, paused: bool) {
        self.cluster
            .signal(number(broker), if paused { "STOP" } else { "CONT" });
    }

    /// Ends one as an operator would: it hands its leaders over first.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn end(&self, broker: usize) -> Result<(), String> {
        self.cluster.signal(number(broker), "TERM");
        match tokio::task::block_in_place(|| self.cluster.is_gone_within(number(broker), LEAVE)) {
            true => Ok(()),
            false => Err(format!("broker {} did not end within {LEAVE:?}", broker + 1)),
        }
    }

    /// Starts those that are down, and waits until they serve.
    pub fn start_missing(&self) {
        tokio::task::block_in_place(|| self.cluster.start_missing());
    }

    /// Cuts one off from everybody, or lets it come back.
    ///
    /// # Errors
    /// If that is not allowed.
    pub fn isolate(&self, broker: usize, cut: bool) -> Result<(), String> {
        let place = self.places.get(broker).ok_or("brokers are in no namespaces")?;
        place.isolate(cut)
    }

    /// Waits until every replica is in sync and every broker leads its share: nothing of the last fault is left.
    ///
    /// # Errors
    /// How it is instead.
    pub async fn whole(&self) -> Result<(), String> {
        let Some(leaders) = &self.leaders else {
            return Ok(());
        };
        let all = usize::try_from(SHARDS).expect("a small number");
        let share = usize::try_from(SHARDS / BROKERS).expect("a small number");
        let replicas = usize::try_from(BROKERS).expect("a small number");
        leaders
            .holds(WHOLE, |now| {
                let leads = |broker: i32| now.values().filter(|leader| leader.0 == broker).count();
                now.len() == all
                    && now.values().all(|leader| leader.1 == replicas)
                    && (1..=3).all(|broker| leads(broker) >= share)
            })
            .await
            .map_err(|how| format!("the brokers are not whole again (leader and replicas in sync): {how}"))
    }
}

fn number(broker: usize) -> u32 {
    u32::try_from(broker + 1).expect("a small number")
}
