//! Whatever way a stream of messages is cut, and whatever is in it. prost is the judge of what a message says.

use bytes::BufMut;
use bytes::BytesMut;
use proptest::prelude::*;
use prost::Message;
use tonic::Code;

use super::super::grpc::framed;
use super::super::grpc::put_prefix;
use super::super::proto::grpc::block::Chunk;
use super::super::proto::grpc::block::ReadResponse;
use super::*;

const MAX: u64 = 1 << 20;

/// As a worker of Alluxio 2.9.4 sent it: ten bytes in one message, and the empty chunk of a read behind the end.
const RECORDED: &[u8] = b"\0\0\0\0\x0e\x0a\x0c\x0a\x0a0123456789\0\0\0\0\x04\x0a\x02\x0a\0";

fn response(data: &[u8]) -> ReadResponse {
    ReadResponse { chunk: Some(Chunk { data: Some(Bytes::copy_from_slice(data)) }) }
}

/// A message of these bytes.
fn raw(message: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_prefix(&mut out, message.len());
    out.put_slice(message);
    out.to_vec()
}

/// The data of each message, in a stream that comes in these frames.
fn parse<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, Status> {
    let mut responses = ReadResponses::new(MAX);
    let (mut messages, mut data) = (Vec::new(), Vec::new());
    for frame in frames {
        let mut frame = Bytes::copy_from_slice(frame);
        while let Some(event) = responses.next(&mut frame)? {
            match event {
                Event::Data(part) => {
                    assert!(!part.is_empty());
                    data.extend_from_slice(&part);
                }
                Event::End { empty } => {
                    assert_eq!(empty, data.is_empty());
                    messages.push(std::mem::take(&mut data));
                }
            }
        }
        assert!(frame.is_empty(), "something of it was left");
    }
    responses.finish()?;
    Ok(messages)
}

fn refused(message: &[u8], why: &str) {
    for frames in [message.chunks(message.len()), message.chunks(1)] {
        let status = parse(frames).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains(why), "{status:?} and not {why:?}");
    }
}

#[test]
fn what_was_recorded_is_read_wherever_it_is_cut() {
    let expected = vec![b"0123456789".to_vec(), Vec::new()];
    assert_eq!(parse([RECORDED]).unwrap(), expected);
    assert_eq!(parse(RECORDED.chunks(1)).unwrap(), expected);
    for first in 0..=RECORDED.len() {
        for second in first..=RECORDED.len() {
            let parts = [&RECORDED[..first], &RECORDED[first..second], &RECORDED[second..]];
            assert_eq!(parse(parts).unwrap(), expected, "cut at {first} and {second}");
        }
    }
}

#[test]
fn the_data_is_given_as_it_lies_before_its_message_is_complete() {
    let whole = framed(&response(&[7; 1000]));
    let mut responses = ReadResponses::new(MAX);
    let mut frame = whole.slice(..500);
    let Some(Event::Data(part)) = responses.next(&mut frame).unwrap() else { panic!("no data") };
    assert_eq!(part.as_ptr_range().end, whole[..500].as_ptr_range().end);
    assert_eq!(responses.next(&mut frame).unwrap(), None);
    assert!(responses.finish().is_err());
    let mut frame = whole.slice(500..);
    assert!(matches!(responses.next(&mut frame), Ok(Some(Event::Data(part))) if part.len() == 511));
    assert_eq!(responses.next(&mut frame).unwrap(), Some(Event::End { empty: false }));
    assert!(responses.finish().is_ok());
}

#[test]
fn what_is_unknown_is_skipped_and_what_is_not_there_is_nothing() {
    // Of all types, before, after and within the chunk: 2 and 400 as a number, 3 as 8 bytes, 4 as bytes, 5 as 4 bytes.
    let other = b"\x10\xac\x02\x80\x19\x01\x1912345678\x22\x03abc\x2d1234";
    let mut chunk = other.to_vec();
    chunk.extend_from_slice(b"\x0a\x03xyz");
    chunk.extend_from_slice(other);
    let mut message = other.to_vec();
    message.extend_from_slice(&[0x0a, u8::try_from(chunk.len()).unwrap()]);
    message.extend_from_slice(&chunk);
    message.extend_from_slice(other);
    assert_eq!(ReadResponse::decode(&message[..]).unwrap(), response(b"xyz"), "so says prost");
    let stream = raw(&message);
    for at in 0..stream.len() {
        assert_eq!(parse([&stream[..at], &stream[at..]]).unwrap(), [b"xyz"], "cut at {at}");
    }
    assert_eq!(parse([&raw(b"")[..]]).unwrap(), [b""]);
    assert_eq!(parse([&raw(b"\x0a\0")[..]]).unwrap(), [b""]);
    // Two chunks of which one has data are one for protobuf.
    assert_eq!(parse([&raw(b"\x0a\0\x0a\x04\x0a\x02xy")[..]]).unwrap(), [b"xy"]);
}

#[test]
fn what_is_not_such_a_message_is_refused() {
    refused(b"\x01\0\0\0\0", "compressed (1)");
    refused(&raw(b"\x0a\x05\x0a\x03x"), "longer than what it is in");
    refused(&raw(b"\x0a\x02\x0a\x03xyz"), "longer than what it is in");
    refused(&raw(b"\x0a\x01\x0a\x03xyz"), "a number has no end");
    refused(&raw(b"\x19123"), "longer than what it is in");
    refused(&raw(b"\x10\x80"), "a number has no end");
    refused(&raw(b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), "too large");
    refused(&raw(b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), "too large");
    refused(&raw(b"\x00\x01"), "cannot be");
    refused(&raw(b"\x92\x80\x80\x80\x10\x01x"), "cannot be");
    refused(&raw(b"\x08\x01"), "of another type");
    refused(&raw(b"\x13\x14"), "field 2 is of type 3");
    refused(&raw(b"\x0a\x08\x0a\x02ab\x0a\x02cd"), "twice");
    refused(&raw(b"\x0a\x04\x0a\x02ab\x0a\x04\x0a\x02cd"), "twice");
}

#[test]
fn a_message_that_is_too_large_is_refused_by_its_length_alone() {
    let status = parse([&[0, 0, 0x10, 0, 1][..]]).unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("1048577") && status.message().contains("1048576"), "{status:?}");
    let largest = framed(&response(&vec![1; MAX as usize - 8]));
    assert_eq!(largest.len() as u64, MAX + PREFIX as u64);
    assert!(parse([&largest[..]]).is_ok());
}

#[test]
fn a_stream_that_ends_within_a_message_is_refused() {
    let whole = RECORDED.len();
    for end in (1..whole).filter(|end| *end != 19) {
        let status = parse([&RECORDED[..end]]).unwrap_err();
        assert!(status.message().contains("ends within"), "{end}: {status:?}");
    }
    assert_eq!(parse([&RECORDED[..19]]).unwrap().len(), 1);
    assert!(parse([]).unwrap().is_empty());
}

/// Cuts `stream` after as many bytes as each of `cuts` says, again and again.
fn cut<'a>(mut stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for length in cuts.iter().cycle() {
        let (part, rest) = stream.split_at(stream.len().min(*length));
        parts.push(part);
        stream = rest;
        if stream.is_empty() {
            return parts;
        }
    }
    parts
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(
        datas in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..6),
        cuts in prop::collection::vec(1_usize..300, 1..6),
    ) {
        let stream: Vec<u8> = datas.iter().flat_map(|data| framed(&response(data))).collect();
        prop_assert_eq!(parse(cut(&stream, &cuts)).unwrap(), datas);
    }

    #[test]
    fn whatever_prost_can_read_is_read_alike_and_nothing_panics(
        message in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x0a), 0_u8..6], 0..40),
        cuts in prop::collection::vec(1_usize..20, 1..4),
    ) {
        let stream = raw(&message);
        let whole = parse([&stream[..]]);
        prop_assert_eq!(parse(cut(&stream, &cuts)).ok(), whole.as_ref().ok().cloned());
        match (whole, ReadResponse::decode(&message[..])) {
            (Ok(found), Ok(said)) => {
                let data = said.chunk.and_then(|chunk| chunk.data).unwrap_or_default();
                prop_assert_eq!(found, [data.to_vec()]);
            }
            (Ok(_), Err(err)) => prop_assert!(false, "prost refuses it: {}", err),
            (Err(status), Ok(_)) => {
                let known = ["twice", "is of type 3"].iter().any(|why| status.message().contains(why));
                prop_assert!(known, "prost reads it: {:?}", status);
            }
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn garbage_is_an_error_or_nothing_but_never_a_panic(
        stream in prop::collection::vec(prop_oneof![any::<u8>(), Just(0)], 0..200),
        cuts in prop::collection::vec(1_usize..20, 1..4),
    ) {
        let _ = parse(cut(&stream, &cuts));
    }
}
