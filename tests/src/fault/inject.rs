//! Making faults, and mending them.

use std::time::Duration;

use super::client::Clients;
use super::plan::{Fault, Kind};
use super::proxy::Mode;
use super::setup::Ground;

/// How long Postgres stays away, or has no room.
const AWAY: Duration = Duration::from_millis(1_500);
/// How much longer everything takes with [`Kind::Slow`], each way.
const SLOW: Duration = Duration::from_millis(60);
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
