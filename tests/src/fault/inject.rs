//! Making faults, and mending them.

use std::time::Duration;

use super::brokers::{Brokers, SESSION};
use super::client::Clients;
use super::net::Net;
use super::plan::{Fault, Kind};
use super::proxy::Mode;
use super::setup::Ground;

/// How long Postgres stays away, or has no room.
const AWAY: Duration = Duration::from_millis(1_500);
/// How much longer everything takes with [`Kind::Slow`], each way.
const SLOW: Duration = Duration::from_millis(60);
/// How long the majority of the brokers stays away, at least: they take some seconds to start, too.
const MAJORITY_AWAY: Duration = Duration::from_secs(3);
/// How much longer a node is cut off from its brokers than other faults last: beyond `command.stall_ms` it says so itself.
const STALLED: Duration = Duration::from_secs(6);
/// What a busy machine may add to a takeover.
const BUSY: Duration = Duration::from_secs(20);

/// Makes faults on a ground under load.
#[derive(Debug)]
pub struct Injector<'a> {
    /// What is broken.
    pub ground: &'a mut Ground,
    /// Who feels it.
    pub clients: &'a Clients,
    /// How long leases last.
    pub lease: Duration,
}

impl Injector<'_> {
    /// Makes a fault and mends it. When this returns, everything runs again or is being started.
    ///
    /// # Errors
    /// What did not behave: no exit in time, no takeover.
    pub async fn inject(&mut self, fault: &Fault) -> Result<(), String> {
        match fault.kind {
            Kind::Kill => {
                let began = self.clients.now();
                self.ground.commands[fault.node].kill().await;
                self.taken_over(began).await
            }
            Kind::Pause => {
                self.ground.commands[fault.node].pause(true);
                tokio::time::sleep(fault.lasts).await;
                self.ground.commands[fault.node].pause(false);
                Ok(())
            }
            Kind::Two => {
                let began = self.clients.now();
                self.ground.commands[fault.other].pause(true);
                self.ground.commands[fault.node].kill().await;
                let taken = match self.ground.commands.len() > 2 {
                    true => self.taken_over(began).await,
                    false => {
                        tokio::time::sleep(fault.lasts).await;
                        Ok(())
                    }
                };
                self.ground.commands[fault.other].pause(false);
                taken
            }
            Kind::Term => self.ground.commands[fault.node].term().await.map(|_| ()),
            Kind::Cut => {
                self.through(fault, Mode::Hold).await;
                Ok(())
            }
            Kind::Break => {
                self.through(fault, Mode::Break).await;
                Ok(())
            }
            Kind::Slow => {
                self.through(fault, Mode::Delay(SLOW)).await;
                Ok(())
            }
            Kind::Postgres => {
                self.ground.postgres.crash().await;
                tokio::time::sleep(AWAY).await;
                self.ground.postgres.heal().await;
                Ok(())
            }
            Kind::Disk => {
                if !self.ground.postgres.fill_disk() {
                    return Err("the server has no disk of its own".to_owned());
                }
                tokio::time::sleep(AWAY).await;
                self.ground.postgres.clear_disk();
                // Without room for its log the server may have ended: whoever makes room starts it.
                self.ground.postgres.heal().await;
                Ok(())
            }
            Kind::Isolate | Kind::CutPostgres | Kind::CutPeers | Kind::CutLog => self.cut(fault).await,
            Kind::BrokerKill
            | Kind::BrokerPause
            | Kind::BrokerRestart
            | Kind::BrokerIsolate
            | Kind::BrokersTwo => {
                let brokers = self.ground.brokers.as_ref();
                broken(brokers.ok_or("the brokers are not the run's own")?, fault).await
            }
            Kind::Process => {
                let node = fault.node % self.ground.processes.len().max(1);
                if let Some(node) = self.ground.processes.get_mut(node) {
                    node.kill().await;
                }
                // Another one takes over: whoever is killed stays away for longer than its leases last.
                tokio::time::sleep(fault.lasts).await;
                Ok(())
            }
            Kind::ProcessPause => {
                let node = fault.node % self.ground.processes.len().max(1);
                let node = self
                    .ground
                    .processes
                    .get(node)
                    .ok_or("there are no process nodes")?;
                node.pause(true);
                tokio::time::sleep(fault.lasts).await;
                node.pause(false);
                Ok(())
            }
            Kind::Readers => {
                for node in &mut self.ground.readers {
                    node.kill().await;
                }
                Ok(())
            }
        }
    }

    /// Something happens to one node's connections for as long as the fault lasts.
    async fn through(&self, fault: &Fault, mode: Mode) {
        let proxy = &self.ground.commands[fault.node].proxy;
        proxy.set(mode);
        tokio::time::sleep(fault.lasts).await;
        proxy.set(Mode::Pass);
    }

    /// A node's network loses what it sends, to all or to some.
    async fn cut(&self, fault: &Fault) -> Result<(), String> {
        let node = &self.ground.commands[fault.node];
        let place = node.place.as_ref().ok_or("the nodes are in no namespaces")?;
        if fault.kind == Kind::Isolate {
            let began = self.clients.now();
            place.isolate(true)?;
            let taken = self.taken_over(began).await;
            let left = fault
                .lasts
                .saturating_sub(self.clients.now().saturating_sub(began));
            tokio::time::sleep(left).await;
            return place.isolate(false).and(taken);
        }
        let others = match fault.kind {
            Kind::CutPeers => {
                let peers = self.ground.commands.iter().filter(|peer| peer.name != node.name);
                peers
                    .filter_map(|peer| Some(peer.place.as_ref()?.address))
                    .collect()
            }
            Kind::CutLog => self
                .ground
                .brokers
                .as_ref()
                .map(Brokers::places)
                .unwrap_or_default(),
            _ => self.ground.net.iter().map(Net::postgres).collect::<Vec<_>>(),
        };
        place.cut_from(&others, true)?;
        let more = if fault.kind == Kind::CutLog {
            STALLED
        } else {
            Duration::ZERO
        };
        tokio::time::sleep(fault.lasts + more).await;
        place.cut_from(&others, false)
    }

    /// Waits until every shard answers although a node is away.
    async fn taken_over(&self, began: Duration) -> Result<(), String> {
        let late = began + self.lease + BUSY;
        while !self.clients.all_answered_since(began) {
            if self.clients.now() > late {
                let silent = self.clients.silent_since(began);
                return Err(format!(
                    "shards {silent:?} were not taken over within the lease and {BUSY:?}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// Breaks one broker, or two, and waits until nothing of that is left.
async fn broken(brokers: &Brokers, fault: &Fault) -> Result<(), String> {
    let silent = fault.lasts.max(SESSION);
    match fault.kind {
        Kind::BrokerKill => {
            brokers.kill(fault.broker);
            tokio::time::sleep(fault.lasts).await;
            brokers.start_missing();
        }
        Kind::BrokerPause => {
            brokers.pause(fault.broker, true);
            tokio::time::sleep(silent).await;
            brokers.pause(fault.broker, false);
        }
        Kind::BrokerRestart => {
            brokers.end(fault.broker)?;
            brokers.start_missing();
        }
        Kind::BrokerIsolate => {
            brokers.isolate(fault.broker, true)?;
            tokio::time::sleep(silent).await;
            brokers.isolate(fault.broker, false)?;
        }
        _ => {
            brokers.kill(fault.broker);
            brokers.kill(fault.other_broker);
            tokio::time::sleep(MAJORITY_AWAY).await;
            brokers.start_missing();
        }
    }
    brokers.whole().await
}
