//! Splitting a batch so that set-based statements keep every stream's order.
//!
//! Each event gets the wave "one more than the last event of its stream in this batch"; consecutive events of one
//! type that is marked `repeat` share a wave. A wave runs one statement per type over all its events. Pure.
//! Source: the design of projections, "Waves".

use std::collections::{BTreeMap, HashMap};

/// What decides an event's wave.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// Whether its statements cope with several events of one stream.
    pub repeat: bool,
}

/// One wave: for each type of event, which of the steps, in their order.
pub type Wave<'a> = BTreeMap<&'a str, Vec<usize>>;

/// Splits steps, which come in the order of their shards, into waves.
///
/// Read wave by wave, the steps of each stream are in their order; without `repeat` no stream occurs twice in a
/// wave, and with it only with steps of one type that follow each other.
pub fn split<'a>(steps: impl IntoIterator<Item = Step<'a>>) -> Vec<Wave<'a>> {
    let mut waves: Vec<Wave<'a>> = Vec::new();
    let mut last: HashMap<&'a str, (usize, &'a str)> = HashMap::new();
    for (index, step) in steps.into_iter().enumerate() {
        let wave = match last.get(step.stream) {
            None => 0,
            Some((wave, event_type)) if step.repeat && *event_type == step.event_type => *wave,
            Some((wave, _)) => wave + 1,
        };
        last.insert(step.stream, (wave, step.event_type));
        if wave == waves.len() {
            waves.push(Wave::new());
        }
        // A wave is at most one more than an earlier one, so it is there.
        if let Some(steps) = waves.get_mut(wave) {
            steps.entry(step.event_type).or_default().push(index);
        }
    }
    waves
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const TYPES: [(&str, bool); 4] = [("a.x", false), ("a.y", true), ("a.z", true), ("a.w", false)];

    fn steps_of(picks: &[(usize, usize)], streams: &[String]) -> Vec<(String, &'static str, bool)> {
        let step = |&(stream, kind): &(usize, usize)| {
            let (event_type, repeat) = TYPES[kind % TYPES.len()];
            (streams[stream % streams.len()].clone(), event_type, repeat)
        };
        picks.iter().map(step).collect()
    }

    proptest! {
        #[test]
        fn equal_one_by_one_application_for_every_stream(
            picks in prop::collection::vec((0_usize..6, 0_usize..4), 0..120),
        ) {
            let streams: Vec<String> = (0..6).map(|n| format!("a-{n}")).collect();
            let steps = steps_of(&picks, &streams);
            let waves = split(steps.iter().map(|(stream, event_type, repeat)| Step {
                stream,
                event_type,
                repeat: *repeat,
            }));
            // Every step once, under its own type.
            let mut order: HashMap<&str, Vec<usize>> = HashMap::new();
            let mut count = 0;
            for wave in &waves {
                let mut seen: HashMap<&str, usize> = HashMap::new();
                prop_assert!(!wave.is_empty());
                for (event_type, indices) in wave {
                    for &index in indices {
                        let (stream, kind, repeat) = &steps[index];
                        prop_assert_eq!(kind, event_type);
                        count += 1;
                        if let Some(before) = seen.insert(stream.as_str(), index) {
                            prop_assert!(*repeat && steps[before].1 == *kind, "a stream twice in a wave");
                        }
                        order.entry(stream.as_str()).or_default().push(index);
                    }
                }
            }
            prop_assert_eq!(count, steps.len());
            for indices in order.values() {
                prop_assert!(indices.is_sorted(), "a stream out of order: {:?}", indices);
                let unique: HashSet<_> = indices.iter().collect();
                prop_assert_eq!(unique.len(), indices.len());
            }
        }
    }

    #[test]
    fn a_hot_stream_of_one_repeated_type_is_one_wave() {
        let step = |event_type, repeat| Step {
            stream: "product-1",
            event_type,
            repeat,
        };
        let steps = vec![step("p.reserved", true); 500];
        assert_eq!(split(steps).len(), 1);
        let steps = vec![step("p.repriced", false); 5];
        assert_eq!(split(steps).len(), 5);
        let mixed = [
            step("p.reserved", true),
            step("p.reserved", true),
            step("p.released", true),
            step("p.reserved", true),
        ];
        let waves = split(mixed);
        assert_eq!(waves.len(), 3);
        assert_eq!(waves[0]["p.reserved"], [0, 1]);
    }
}
