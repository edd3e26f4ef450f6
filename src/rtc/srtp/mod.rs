//! SRTP and SRTCP (RFC 3711, RFC 7714): sealing and opening, in place or out of place, without allocation.

/// Protection profiles of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// 0x0001 `SRTP_AES128_CM_HMAC_SHA1_80`
    Aes128CmSha1_80,
    /// 0x0007 `SRTP_AEAD_AES_128_GCM`
    AeadAes128Gcm,
    /// 0x0008 `SRTP_AEAD_AES_256_GCM`
    AeadAes256Gcm,
}
