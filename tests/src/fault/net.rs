//! The network of a run: namespaces on a bridge, each cut off from everything or from some of the others.
//!
//! A cut is silence: nothing is refused, no connection breaks, and what is sent is lost. Connections stay half open, as
//! behind a switch that died; a proxy cannot do that, since its own ends go on acknowledging.
//!
//! *Invariant:* names are the run's own, and everything is taken away when [`Net`] is dropped.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use crate::unique;

/// Nobody on the bridge has it: what is sent there is lost.
const NOBODY: &str = "02:00:00:00:00:00";
/// Addresses below are this side's own.
const FIRST: u8 = 10;

/// A bridge, this side's addresses on it, and the namespaces that hang on it.
#[derive(Debug)]
pub struct Net {
    name: String,
    prefix: [u8; 2],
    places: u8,
}

/// A namespace with one address.
#[derive(Debug, Clone)]
pub struct Place {
    /// The namespace's name.
    pub namespace: String,
    /// What it is reached at.
    pub address: Ipv4Addr,
    /// This side's end of its cable.
    link: String,
}

impl Net {
    /// A bridge of its own.
    ///
    /// # Errors
    /// Why there can be none here: no right to make one, or nothing gets through.
    pub fn make() -> Result<Self, String> {
        let name = unique("");
        let name = format!("af{}", &name[name.len() - 6..]);
        let taken = ip(&["-4", "-o", "addr", "show"])?;
        let prefix = (1..=u8::MAX).map(|third| [201, third]);
        let free = |[second, third]: &[u8; 2]| !taken.contains(&format!("10.{second}.{third}."));
        // Runs at once choose apart: by their names, which are random.
        let start = name.bytes().map(usize::from).sum::<usize>();
        let prefix = prefix.cycle().skip(start).take(255).find(free);
        let prefix = prefix.ok_or("every network that it might use is taken")?;
        let mut this = Self {
            name,
            prefix,
            places: 0,
        };
        this.build()?;
        Ok(this)
    }

    fn build(&mut self) -> Result<(), String> {
        let bridge = self.name.clone();
        // First the right to make a namespace: that is what most machines refuse.
        let probe = self.place()?;
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        for own in [self.clients(), self.postgres(), self.gateway()] {
            ip(&["addr", "add", &format!("{own}/24"), "dev", &bridge])?;
        }
        ip(&["link", "set", &bridge, "up"])?;
        probe.plug(&bridge)?;
        let listener = TcpListener::bind((self.postgres(), 0)).map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let connect = format!("exec 3<>/dev/tcp/{}/{port}", self.postgres());
        let words = [
            "netns",
            "exec",
            &probe.namespace,
            "timeout",
            "5",
            "bash",
            "-c",
            &connect,
        ];
        ip(&words).map_err(|why| format!("nothing gets through a bridge here: {why}"))?;
        Ok(())
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.prefix[0], self.prefix[1], last)
    }

    /// From where clients come.
    #[must_use]
    pub fn clients(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Where ways to Postgres are listened on.
    #[must_use]
    pub fn postgres(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// Where the payment gateway is.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(3)
    }

    /// One more namespace, on the bridge if there is one yet.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn place(&mut self) -> Result<Place, String> {
        self.places += 1;
        let number = self.places;
        let place = Place {
            namespace: format!("{}n{number}", self.name),
            address: self.address(FIRST + number),
            link: format!("{}v{number}", self.name),
        };
        let namespace = place.namespace.as_str();
        ip(&["netns", "add", namespace])?;
        ip(&[
            "link",
            "add",
            &place.link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            namespace,
        ])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        ip(&[
            "-n",
            namespace,
            "addr",
            "add",
            &format!("{}/24", place.address),
            "dev",
            "eth0",
        ])?;
        ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        if number > 1 {
            place.plug(&self.name)?;
        }
        Ok(place)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for number in 1..=self.places {
            let _ = ip(&["link", "del", &format!("{}v{number}", self.name)]);
            let _ = ip(&["netns", "del", &format!("{}n{number}", self.name)]);
        }
        let _ = ip(&["link", "del", &self.name]);
    }
}

impl Place {
    fn plug(&self, bridge: &str) -> Result<(), String> {
        ip(&["link", "set", &self.link, "master", bridge])?;
        self.isolate(false)
    }

    /// Takes its link down, or up again: nothing gets in or out.
    ///
    /// # Errors
    /// If that is not allowed.
    pub fn isolate(&self, cut: bool) -> Result<(), String> {
        let state = if cut { "down" } else { "up" };
        ip(&["link", "set", &self.link, state]).map(drop)
    }

    /// Whatever it sends to these addresses is lost, or no more. What they send still comes, and cannot be answered.
    ///
    /// # Errors
    /// If that is not allowed.
    pub fn cut_from(&self, others: &[Ipv4Addr], cut: bool) -> Result<(), String> {
        for other in others {
            let other = other.to_string();
            let namespace = self.namespace.as_str();
            if cut {
                ip(&[
                    "-n",
                    namespace,
                    "neigh",
                    "replace",
                    &other,
                    "lladdr",
                    NOBODY,
                    "dev",
                    "eth0",
                    "nud",
                    "permanent",
                ])?;
            } else {
                ip(&["-n", namespace, "neigh", "del", &other, "dev", "eth0"])?;
            }
        }
        Ok(())
    }

    /// The same program in this namespace. Its process id is that of the program.
    #[must_use]
    pub fn within(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &self.namespace]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped
    }
}

fn ip(words: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(words).output();
    let output = output.map_err(|error| format!("ip (package iproute2): {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", words.join(" "), why.trim()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    /// An echo in a namespace, asked from this side; `None`: silence.
    fn asked(stream: &mut TcpStream) -> Option<u8> {
        stream.write_all(b"x").ok()?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).ok()?;
        Some(answer[0])
    }

    #[test]
    fn a_cut_is_silence_its_end_lets_everything_through_and_nothing_is_left_behind() {
        let mut net = match Net::make() {
            Ok(net) => net,
            Err(why) => {
                eprintln!("skipped: no network namespaces here: {why}");
                return;
            }
        };
        let name = net.name.clone();
        let place = net.place().unwrap();
        // In the namespace: whatever comes in goes out again, through this side's listener.
        let listener = TcpListener::bind((net.clients(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut echo = Command::new("bash");
        echo.arg("-c").arg(format!(
            "exec 3<>/dev/tcp/{}/{port}; exec cat <&3 >&3",
            net.clients()
        ));
        let mut echo = place.within(&echo).spawn().unwrap();
        let (mut stream, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), place.address);
        stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        assert_eq!(asked(&mut stream), Some(b'x'));
        // From others only: this side is still heard.
        place.cut_from(&[net.postgres()], true).unwrap();
        assert_eq!(asked(&mut stream), Some(b'x'));
        place.cut_from(&[net.postgres()], false).unwrap();
        for cut in [
            |place: &Place, net: &Net, cut: bool| place.cut_from(&[net.clients()], cut).unwrap(),
            |place: &Place, _: &Net, cut: bool| place.isolate(cut).unwrap(),
        ] {
            cut(&place, &net, true);
            assert_eq!(asked(&mut stream), None);
            cut(&place, &net, false);
            // The connection lived on: what was sent is sent again, and arrives.
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
            stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        }
        echo.kill().unwrap();
        echo.wait().unwrap();
        drop(net);
        let links = ip(&["-o", "link", "show"]).unwrap() + &ip(&["netns", "list"]).unwrap();
        assert!(!links.contains(&name), "{links}");
    }
}
