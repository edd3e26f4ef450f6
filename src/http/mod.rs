//! WHIP, WHEP, player pages, dashboard and the admin listener.
