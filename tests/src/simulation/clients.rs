//! The clients: what they send, to whom, and when they send it again.

use annals_domain::Precondition;

use super::Check;
use super::domain::{Verb, at_version, request};
use super::history::Order;
use super::nodes::Open;
use super::world::World;

/// How long a node may keep a command that it has not decided, ms.
const DEADLINE_MS: i64 = 5_000;

impl World {
    pub(super) fn send_new(&mut self) -> Check {
        let order = self.draw_order();
        self.history.orders.push(order);
        self.attempt(self.history.orders.len() - 1)
    }

    fn draw_order(&mut self) -> Order {
        let orders = self.history.orders.len();
        // A key that was used before: by the same command again, or by another one.
        if orders > 0 && self.rng.chance(180) {
            let mut again = self.history.orders[self.rng.below(orders)].clone();
            (again.settled, again.waits_for) = (false, None);
            if self.rng.chance(300) {
                again.verb = self.draw_verb();
            }
            return again;
        }
        let stream = self.rng.below(self.streams.len());
        let stream = self.streams[stream].clone();
        let version = self.truth.version(&stream);
        let precondition = match self.rng.below(10) {
            0 | 1 => at_version(version),
            2 => at_version(version + 1),
            3 => Precondition::Exists,
            4 => Precondition::Absent,
            _ => Precondition::None,
        };
        Order {
            stream,
            verb: self.draw_verb(),
            precondition,
            key: u32::try_from(orders).expect("a run is short"),
            foreign: self.rng.chance(20),
            settled: false,
            waits_for: None,
        }
    }

    fn draw_verb(&mut self) -> Verb {
        match self.rng.below(3) {
            0 => Verb::Add(self.rng.range(1, 2)),
            1 => Verb::Take(self.rng.range(1, 2)),
            _ => Verb::Set(self.rng.range(0, 3)),
        }
    }

    /// A command whose outcome its client does not know.
    pub(super) fn send_again(&mut self) -> Check {
        let open = |order: &Order| !order.settled && order.waits_for.is_none();
        let count = self.history.orders.iter().filter(|order| open(order)).count();
        if count == 0 {
            return Ok(());
        }
        let chosen = self.rng.below(count);
        let order = (0..self.history.orders.len())
            .filter(|n| open(&self.history.orders[*n]))
            .nth(chosen);
        self.attempt(order.expect("it was counted"))
    }

    pub(super) fn attempt(&mut self, order: usize) -> Check {
        let up: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].engine.is_some())
            .collect();
        if up.is_empty() {
            return Ok(());
        }
        let node = self.rng.pick(&up);
        let attempt = self.history.begin(order);
        self.counts.sent += 1;
        self.say(|world| {
            format!(
                "attempt {attempt} of order {order}: {:?}",
                world.history.orders[order]
            )
        });
        self.hand(attempt, node)
    }

    /// A new command straight to one node.
    pub(super) fn ask(&mut self, node: usize) -> Check {
        let order = self.draw_order();
        self.history.orders.push(order);
        let attempt = self.history.begin(self.history.orders.len() - 1);
        self.hand(attempt, node)
    }

    fn hand(&mut self, attempt: usize, node: usize) -> Check {
        let order = &self.history.orders[self.history.attempts[attempt].order];
        let request = request(
            &self.catalog,
            &order.stream,
            order.verb,
            order.precondition,
            order.key,
            attempt,
            order.foreign,
        );
        let token = self.history.hand(attempt, node, self.now_ms);
        self.say(|_| format!("attempt {attempt} goes to node {node} as {token}"));
        let deadline_ms = self.now_ms + self.nodes[node].skew_ms + DEADLINE_MS;
        self.nodes[node].open.push(Open::Command {
            token,
            request: Box::new(request),
            deadline_ms,
        });
        Ok(())
    }

    /// One hop, as the edge does it; whoever came through another node has come far enough.
    pub(super) fn forward(&mut self, attempt: usize, url: &str) -> Check {
        let to: usize = url
            .strip_prefix("http://n")
            .and_then(|n| n.parse().ok())
            .expect("a node's address");
        let asked = &mut self.history.attempts[attempt];
        if std::mem::replace(&mut asked.forwarded, true) || self.nodes[to].engine.is_none() {
            let order = asked.order;
            if self.history.orders[order].waits_for == Some(attempt) {
                self.history.orders[order].waits_for = None;
            }
            return Ok(());
        }
        self.hand(attempt, to)
    }

    /// A client gives up waiting; the command goes on.
    pub(super) fn give_up(&mut self) {
        let waiting: Vec<usize> = (0..self.history.orders.len())
            .filter(|n| self.history.orders[*n].waits_for.is_some())
            .collect();
        if !waiting.is_empty() {
            let order = self.rng.pick(&waiting);
            self.history.orders[order].waits_for = None;
            self.say(|_| format!("the client of order {order} gives up waiting"));
        }
    }
}
