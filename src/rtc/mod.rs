//! The sans-IO WebRTC endpoint, answerer only: SDP, ICE-lite, DTLS, SRTP, RTCP, SCTP.
