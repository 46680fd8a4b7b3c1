//! Records that no client library would write, written to the broker's socket by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use annals_log::Log;
use annals_log::testing::Chained;
use annals_record::Shard;
use annals_record::record::Slot;

use super::broker::TestTopic;
use super::log::read;

/// CRC-32C. Source: RFC 3720, appendix B.4.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// A zigzag integer of one or two bytes.
fn varint(out: &mut Vec<u8>, number: i16) {
    let zigzag = u16::from_ne_bytes(((number << 1) ^ (number >> 15)).to_ne_bytes());
    if zigzag < 0x80 {
        out.push(zigzag as u8);
    } else {
        out.extend([(zigzag as u8) | 0x80, (zigzag >> 7) as u8]);
    }
}

/// A batch of one record without key and value. Source: Kafka's record batch format, version 2.
fn batch(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut record = vec![0];
    varint(&mut record, 0); // time
    varint(&mut record, 0); // offset
    varint(&mut record, -1); // key
    varint(&mut record, -1); // value
    varint(&mut record, headers.len() as i16);
    for (name, value) in headers {
        for bytes in [name, value] {
            varint(&mut record, bytes.len() as i16);
            record.extend_from_slice(bytes);
        }
    }
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes()); // attributes
    checked.extend(0_i32.to_be_bytes()); // last offset
    checked.extend(1_790_000_000_000_i64.to_be_bytes());
    checked.extend(1_790_000_000_000_i64.to_be_bytes());
    checked.extend((-1_i64).to_be_bytes()); // producer, its epoch, its sequence
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(1_i32.to_be_bytes());
    varint(&mut checked, record.len() as i16);
    checked.extend(record);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend((checked.len() as i32 + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

/// Produce, version 3.
fn produce(topic: &TestTopic, batch: &[u8]) {
    let mut request = Vec::new();
    request.extend([0, 0, 0, 3]);
    request.extend(7_i32.to_be_bytes());
    request.extend((-1_i16).to_be_bytes()); // client id
    request.extend((-1_i16).to_be_bytes()); // transaction
    request.extend((-1_i16).to_be_bytes()); // acks
    request.extend(10_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    let name = topic.name();
    request.extend((name.len() as i16).to_be_bytes());
    request.extend(name.as_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend(0_i32.to_be_bytes()); // partition
    request.extend((batch.len() as i32).to_be_bytes());
    request.extend(batch);
    let mut broker = TcpStream::connect(&topic.brokers).unwrap();
    broker.write_all(&(request.len() as i32).to_be_bytes()).unwrap();
    broker.write_all(&request).unwrap();
    let mut size = [0; 4];
    broker.read_exact(&mut size).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    broker.read_exact(&mut answer).unwrap();
    // Correlation, one topic, its name, one partition, its number; then the error.
    let error = &answer[4 + 4 + 2 + name.len() + 4 + 4..][..2];
    assert_eq!(error, [0, 0], "{answer:?}");
}

#[tokio::test]
async fn a_header_name_that_is_no_text_is_foreign_and_ends_nothing() {
    let Some(topic) = TestTopic::create(1).await else {
        return;
    };
    produce(
        &topic,
        &batch(&[(b"annals", b"1"), (b"\xc3\x28", b"x"), (b"last", b"")]),
    );
    let log = topic.open().await;
    let mut writer = Chained::new(topic.app.clone(), Shard::new(0), topic.shards);
    log.append(writer.shard(), writer.head(), vec![writer.claim()])
        .await;
    let found = read(&log, writer.shard(), 0, 2).await;
    let Slot::Foreign(raw) = &found[0].slot else {
        panic!("{found:?}");
    };
    assert_eq!((&raw.key, &raw.value), (&None, &None));
    let names: Vec<_> = raw.headers.iter().map(|header| &header.name[..]).collect();
    assert_eq!(names, [&b"annals"[..], b"\xff\xff", b"last"]);
    assert_eq!(raw.headers[2].value.as_deref(), Some(&b""[..]));
    assert!(found[1].slot.known().is_some());
    log.close().await;
}
