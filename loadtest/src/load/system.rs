//! The few things of Linux that the standard library has no words for: batched receiving with the kernel's own time
//! stamps, drop counters, CPU clocks of other processes, signals, pinning, and the limit of open files.
#![expect(unsafe_code, reason = "system calls that neither std nor socket2 wraps")]

use std::{
    io, mem,
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    ptr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_core::wire::datagram::DATAGRAM_BYTES_MAX;
use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams taken from a socket with one call.
const BATCH: usize = 32;

/// One more than the longest datagram, so that a longer one shows.
const BUFFER_BYTES: usize = DATAGRAM_BYTES_MAX + 1;

/// Room for one control message with a `timespec`, as `CMSG_SPACE` has it on 64-bit machines: 16 and 16 bytes.
const CONTROL_BYTES: usize = 32;

/// Nanoseconds since 1970 by the clock that the kernel stamps datagrams with.
pub(super) fn realtime_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A nonblocking UDP socket whose datagrams carry the time of their arrival.
pub(super) struct StampedSocket {
    socket: UdpSocket,
}

impl StampedSocket {
    /// A socket connected to `peer`, with room for about `receive_buffer_bytes` of datagrams, as far as the system allows.
    pub(super) fn connect(peer: SocketAddr, receive_buffer_bytes: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(receive_buffer_bytes)?;
        set_flag(socket.as_raw_fd(), libc::SO_TIMESTAMPNS)?;
        socket.connect(&peer.into())?;
        Ok(Self { socket: socket.into() })
    }

    /// Where it is bound.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends one datagram.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.socket.send(datagram)
    }

    /// Fills `batch` with what has arrived and returns how many datagrams that is; 0 when there is nothing.
    pub(super) fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.reset();
        // SAFETY: `batch` owns every buffer that its headers point to, they are as long as the headers say and do not
        // move while the call runs; the count is that of the headers.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                batch.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(count) => {
                batch.filled = count;
                Ok(count)
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                // An ICMP answer to what was sent; the datagram it is about counts as lost where it is missed.
                error if error.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
                error => Err(error),
            },
        }
    }

    /// Datagrams that the kernel dropped since this socket's buffer was full.
    pub(super) fn dropped(&self) -> io::Result<u32> {
        // The kernel has so many values; the one wanted has been there since SO_MEMINFO was.
        let mut values = [0_u32; 9];
        let mut length = size_of_val(&values) as libc::socklen_t;
        // SAFETY: the pointers are to `values` and `length`, which live through the call, and `length` says how long
        // `values` is.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                values.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        check(result)?;
        Ok(values[libc::SK_MEMINFO_DROPS as usize])
    }
}

/// Has the kernel remember when what a stream brings has arrived.
pub(super) fn stamp_arrivals(stream: &TcpStream) -> io::Result<()> {
    set_flag(stream.as_raw_fd(), libc::SO_TIMESTAMPNS)
}

/// Reads from such a stream, and says when the last byte arrived by [`realtime_ns`]'s clock; `None` when the kernel did
/// not say.
pub(super) fn read_stamped(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: every field of a `msghdr` is a number or a pointer; all zero is a valid, empty one.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    // SAFETY: `vector`, `control` and `buffer` live through the call and are as long as the header says.
    let read = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut header, 0) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    Ok((read, stamp_of(&control.0, header.msg_controllen)))
}

fn set_flag(socket: RawFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer is to `on`, which lives through the call, and `length` is its size.
    check(unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, (&raw const on).cast(), length) })
}

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Buffers for one call, made once.
pub(super) struct Batch {
    buffers: Box<[[u8; BUFFER_BYTES]]>,
    controls: Box<[Control]>,
    /// Pointed to by `headers`.
    _vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl Batch {
    /// How many one call takes at most.
    pub(super) const DATAGRAMS: usize = BATCH;

    pub(super) fn new() -> Self {
        let mut buffers = vec![[0; BUFFER_BYTES]; BATCH].into_boxed_slice();
        let mut controls: Box<[Control]> = (0..BATCH).map(|_| Control([0; CONTROL_BYTES])).collect();
        let mut vectors: Box<[libc::iovec]> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER_BYTES })
            .collect();
        let headers = vectors
            .iter_mut()
            .zip(controls.iter_mut())
            .map(|(vector, control)| {
                // SAFETY: every field of a `mmsghdr` is a number or a pointer; all zero is a valid, empty one.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL_BYTES;
                header
            })
            .collect();
        Self { buffers, controls, _vectors: vectors, headers, filled: BATCH }
    }

    /// Makes ready again what the last call wrote.
    fn reset(&mut self) {
        for header in &mut self.headers[..self.filled] {
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
        }
        self.filled = 0;
    }

    /// A received datagram, and when it arrived by [`realtime_ns`]'s clock; `None` when the kernel did not say.
    pub(super) fn datagram(&mut self, index: usize) -> (&mut [u8], Option<u64>) {
        let header = &self.headers[index];
        let length = (header.msg_len as usize).min(BUFFER_BYTES);
        let stamp = stamp_of(&self.controls[index].0, header.msg_hdr.msg_controllen);
        (&mut self.buffers[index][..length], stamp)
    }
}

/// Reads `struct cmsghdr { size_t len; int level; int type; }` and the `struct timespec` behind it.
fn stamp_of(control: &[u8; CONTROL_BYTES], length: usize) -> Option<u64> {
    let number = |at: usize, bytes: usize| {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&control[at..at + bytes]);
        u64::from_ne_bytes(word)
    };
    let (level, kind) = (number(8, 4), number(12, 4));
    let is_stamp = level == libc::SOL_SOCKET as u64 && kind == libc::SCM_TIMESTAMPNS as u64;
    (length >= CONTROL_BYTES && is_stamp).then(|| number(16, 8) * 1_000_000_000 + number(24, 8))
}

/// The CPU time that a process has used, all its threads together, user and system, those that have ended included.
pub(super) fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the pointer is to `clock`, which lives through the call.
    let result = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to `time`, which lives through the call.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    let negative = |_| io::Error::from(io::ErrorKind::InvalidData);
    let seconds = u64::try_from(time.tv_sec).map_err(negative)?;
    Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).map_err(negative)?))
}

/// Sends a signal to one process.
pub(super) fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    // 0 and below would be groups of processes.
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0).ok_or_else(invalid)?;
    // SAFETY: the call takes plain numbers.
    check(unsafe { libc::kill(pid, signal) })
}

/// Binds the calling thread, and those that it starts later, to these CPUs.
pub(super) fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a `cpu_set_t` is a bit set; all zero is the empty one.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: `set` is a valid set and `cpu` is below its size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the pointer is to `set`, which lives through the call, and the size is its own; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
}

/// Lowers the calling thread's priority.
pub(super) fn lower_priority(by: i32) -> io::Result<()> {
    // A new niceness of exactly -1 is taken for a failure, which callers only log.
    // SAFETY: the call takes and gives plain numbers.
    match unsafe { libc::nice(by) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Raises the limit of open files as far as the system allows, and returns it.
pub(super) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to `limit`, which lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_all(socket: &StampedSocket, batch: &mut Batch, wanted: usize) -> Vec<(Vec<u8>, u64)> {
        let mut received = Vec::new();
        let give_up_at = std::time::Instant::now() + Duration::from_secs(10);
        while received.len() < wanted && std::time::Instant::now() < give_up_at {
            for index in 0..socket.receive(batch).expect("receives") {
                let (datagram, stamp) = batch.datagram(index);
                received.push((datagram.to_vec(), stamp.expect("stamped")));
            }
        }
        received
    }

    #[test]
    fn datagrams_come_whole_in_order_and_stamped() {
        let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let socket = StampedSocket::connect(peer.local_addr().expect("bound"), 1 << 20).expect("connects");
        let mut batch = Batch::new();
        assert_eq!(socket.receive(&mut batch).expect("receives"), 0);
        let before = realtime_ns();
        let address = socket.socket.local_addr().expect("bound");
        for number in 0..80_u8 {
            peer.send_to(&vec![number; 10 + usize::from(number)], address).expect("sends");
        }
        let received = receive_all(&socket, &mut batch, 80);
        let after = realtime_ns();
        assert_eq!(received.len(), 80);
        for (number, (datagram, stamp)) in received.iter().enumerate() {
            assert_eq!(*datagram, vec![number as u8; 10 + number]);
            assert!((before..=after).contains(stamp), "{stamp} is not between {before} and {after}");
        }
        assert_eq!(socket.dropped().expect("counts"), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let socket = StampedSocket::connect(peer.local_addr().expect("bound"), 1).expect("connects");
        let address = socket.socket.local_addr().expect("bound");
        for _ in 0..1_000 {
            peer.send_to(&[0; 1_000], address).expect("sends");
        }
        assert!(socket.dropped().expect("counts") > 0);
    }

    #[test]
    fn what_a_stream_brings_is_stamped_when_it_arrives() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        stamp_arrivals(&stream).expect("stamps");
        let (mut peer, _) = listener.accept().expect("accepts");
        let before = realtime_ns();
        io::Write::write_all(&mut peer, b"sound").expect("written");
        let mut buffer = [0; 64];
        let (length, stamp) = read_stamped(&stream, &mut buffer).expect("reads");
        let stamp = stamp.expect("stamped");
        assert!((before..=realtime_ns()).contains(&stamp) && &buffer[..length] == b"sound");
        stream.set_nonblocking(true).expect("does not wait");
        assert_eq!(read_stamped(&stream, &mut buffer).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn our_own_cpu_time_grows_as_we_work() {
        let pid = std::process::id();
        let before = process_cpu_time(pid).expect("our own");
        let mut sum = 0_u64;
        while process_cpu_time(pid).expect("our own") < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu_time(u32::MAX).is_err());
    }
}
