//! A body as numbered lines, each of bounded size.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::body::too_large;
use crate::problem::{Code, Problem};

pub(super) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Up to here there is no line's end in the buffer.
    searched: usize,
    number: u64,
    limit: usize,
    time: Duration,
    /// The rest of a line that was too long is thrown away.
    skipping: bool,
    ended: bool,
}

impl Lines {
    pub(super) fn new(body: Body, limit: usize, time: Duration) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
            number: 0,
            limit,
            time,
            skipping: false,
            ended: false,
        }
    }

    /// The next line that is not blank, with its number from 1; what cannot be read is an error in its place.
    pub(super) async fn next(&mut self) -> Option<(u64, Result<Bytes, Problem>)> {
        loop {
            if let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                let skipped = std::mem::take(&mut self.skipping);
                if skipped {
                    continue;
                }
                if let Some(line) = self.line(&line) {
                    return Some((self.number, line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.limit {
                self.buffer.clear();
                self.searched = 0;
                if !std::mem::replace(&mut self.skipping, true) {
                    self.number += 1;
                    return Some((self.number, Err(too_large(self.limit))));
                }
            }
            if self.ended {
                let rest = self.buffer.split().freeze();
                self.searched = 0;
                return match self.skipping || rest.is_empty() {
                    true => None,
                    false => self.line(&rest).map(|line| (self.number, line)),
                };
            }
            if let Err(problem) = self.more().await {
                self.ended = true;
                self.buffer.clear();
                self.searched = 0;
                self.number += 1;
                return Some((self.number, Err(problem)));
            }
        }
    }

    fn line(&mut self, line: &Bytes) -> Option<Result<Bytes, Problem>> {
        self.number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            return None;
        }
        match text.len() > self.limit {
            true => Some(Err(too_large(self.limit))),
            false => Some(Ok(line.slice_ref(text))),
        }
    }

    async fn more(&mut self) -> Result<(), Problem> {
        let broken = |detail| Problem::because(Code::Malformed, detail);
        let frame = tokio::time::timeout(self.time, self.body.frame()).await;
        match frame.map_err(|_| broken("The next line did not arrive in time."))? {
            None => self.ended = true,
            Some(Err(_)) => return Err(broken("The body did not arrive whole.")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    async fn read(chunks: &[&'static [u8]], limit: usize) -> Vec<(u64, Result<String, Code>)> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk)))
            .collect();
        let mut lines = Lines::new(
            Body::from_stream(stream::iter(chunks)),
            limit,
            Duration::from_secs(5),
        );
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next().await {
            let text = line.map(|line| String::from_utf8_lossy(&line).into_owned());
            all.push((number, text.map_err(|problem| problem.code())));
        }
        all
    }

    #[tokio::test]
    async fn lines_are_found_across_chunks_and_keep_their_numbers() {
        let all = read(&[b"ab", b"c\n\n d", b"ef \r\n", b"last"], 100).await;
        let expected = [(1, "abc"), (3, "def"), (4, "last")];
        assert_eq!(all, expected.map(|(n, text)| (n, Ok(text.to_owned()))));
        assert_eq!(read(&[], 100).await, []);
        assert_eq!(read(&[b"\n\n"], 100).await, []);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_reported_alone() {
        let all = read(
            &[b"ok\n0123", b"456789", b"0123456789", b"x\nnext\n0123456789"],
            8,
        )
        .await;
        assert_eq!(
            all,
            [
                (1, Ok("ok".to_owned())),
                (2, Err(Code::TooLarge)),
                (3, Ok("next".to_owned())),
                (4, Err(Code::TooLarge))
            ]
        );
    }
}
