//! A datagram's way through an engine.

use std::net::SocketAddr;

use super::{Counter, Engine, Event, FrameBytes, Handover, Output, SlabKey, Turn, session::ANSWER_DATAGRAM_BYTES_MAX};
use crate::{
    clock::Micros,
    ids::{ChannelId, MediaSessionId},
    wire::{
        control::{Bind, Ping, report_blocks},
        datagram::{Header, PacketType},
        frame::{FrameHeader, Frames},
    },
};

impl Engine {
    /// Takes in a datagram, or says why it is dropped. Whatever is not authentic is dropped without a trace but its count.
    pub(super) fn take_datagram(
        &mut self,
        now: Micros,
        from: SocketAddr,
        datagram: &mut [u8],
        out: &mut impl Output,
    ) -> Result<(), Counter> {
        if datagram.len() > self.datagram_bytes_max {
            return Err(Counter::DroppedTooLong);
        }
        let header = Header::parse(datagram).map_err(Counter::of_header_error)?;
        if matches!(header.packet_type, PacketType::BindAck | PacketType::Pong) {
            return Err(Counter::DroppedType);
        }
        let key = *self.by_session.get(&MediaSessionId(header.id)).ok_or(Counter::DroppedUnknownSession)?;
        let session = self.sessions.get_mut(key).ok_or(Counter::DroppedUnknownSession)?;
        let opened = session.open(&header, datagram)?;
        let (plaintext, newest) = (opened.plaintext, opened.newest);
        if header.packet_type == PacketType::Bind {
            return self.bind(now, key, from, newest, plaintext, out);
        }
        if newest && session.move_to(from) {
            self.announce(now, key, out);
        }
        match header.packet_type {
            PacketType::Media => {
                self.media(now, key, plaintext, out);
                Ok(())
            }
            PacketType::Ping => self.ping(now, key, from, plaintext, out),
            PacketType::Report => self.report(now, key, plaintext, out),
            PacketType::Bind | PacketType::BindAck | PacketType::Pong => Err(Counter::DroppedType),
        }
    }

    /// The client says where it is, and that it has no proof of hearing us.
    fn bind(
        &mut self,
        now: Micros,
        key: SlabKey,
        from: SocketAddr,
        newest: bool,
        plaintext: &[u8],
        out: &mut impl Output,
    ) -> Result<(), Counter> {
        let bind = Bind::parse(plaintext).ok_or(Counter::DroppedMalformed)?;
        self.work.stats.count(Counter::BindReceived);
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        if newest {
            let moved = session.move_to(from);
            session.proof.end();
            if moved {
                let address = SocketAddr::new(from.ip().to_canonical(), from.port());
                let bound = Event::Bound { session: session.id, address };
                Turn { now, out, work: &mut self.work }.mention(bound);
            }
            self.tell_proof(now, key, out);
            self.announce(now, key, out);
        }
        self.answer(now, key, PacketType::BindAck, bind.client_clock, from, out);
        Ok(())
    }

    fn ping(
        &mut self,
        now: Micros,
        key: SlabKey,
        from: SocketAddr,
        plaintext: &[u8],
        out: &mut impl Output,
    ) -> Result<(), Counter> {
        let ping = Ping::parse(plaintext).ok_or(Counter::DroppedMalformed)?;
        self.work.stats.count(Counter::PingReceived);
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        session.proof.echo(now, ping.node_clock);
        self.answer(now, key, PacketType::Pong, ping.client_clock, from, out);
        self.arm_proof(key);
        // Repeated with each Ping: another worker may have missed it.
        self.announce(now, key, out);
        self.tell_proof(now, key, out);
        Ok(())
    }

    fn answer(
        &mut self,
        now: Micros,
        key: SlabKey,
        packet_type: PacketType,
        client_clock: Micros,
        to: SocketAddr,
        out: &mut impl Output,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut datagram = [0; ANSWER_DATAGRAM_BYTES_MAX];
        let length = session.answer(now, packet_type, client_clock, to, &mut datagram);
        out.send(to, &datagram[..length]);
        let stats = &mut self.work.stats;
        stats.count(Counter::Sealed);
        stats.count(Counter::AnswersSent);
        stats.add(Counter::BytesSent, length as u64);
    }

    fn report(&mut self, now: Micros, key: SlabKey, plaintext: &[u8], out: &mut impl Output) -> Result<(), Counter> {
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        if !session.may_report(now) {
            return Err(Counter::DroppedReportRate);
        }
        let session = session.id;
        self.work.stats.count(Counter::ReportReceived);
        let mut turn = Turn { now, out, work: &mut self.work };
        for block in report_blocks(plaintext) {
            turn.mention(Event::Report { session, block });
        }
        Ok(())
    }

    fn media(&mut self, now: Micros, key: SlabKey, plaintext: &[u8], out: &mut impl Output) {
        self.work.stats.count(Counter::MediaReceived);
        let mut frames = Frames::new(plaintext);
        for (header, bytes) in frames.by_ref() {
            let route = self.sessions.get(key).and_then(|session| session.route(header.stream));
            let Some(route) = route else {
                self.work.stats.count(Counter::FrameForeignStream);
                continue;
            };
            if route.home == self.worker {
                self.accept(now, route.channel, header, bytes, out);
                continue;
            }
            let Some(bytes) = FrameBytes::copy_from(bytes) else { continue };
            let handed = out.handover(route.home, Handover::Frame { channel: route.channel, header, bytes });
            self.work.stats.count(if handed { Counter::FramesHandedOver } else { Counter::FrameWorkerBusy });
        }
        if !frames.rest().is_empty() {
            self.work.stats.count(Counter::FrameCutOff);
        }
    }

    /// A frame for a channel of this worker.
    pub(super) fn accept(
        &mut self,
        now: Micros,
        channel: ChannelId,
        header: FrameHeader,
        bytes: &[u8],
        out: &mut impl Output,
    ) {
        let accepted = match self.channel_turn(now, channel, out) {
            Some((channel, mut turn)) => channel.accept(&mut turn, header, bytes),
            None => Err(Counter::FrameUnknownMember),
        };
        if let Err(reason) = accepted {
            self.work.stats.count(reason);
        }
    }
}
