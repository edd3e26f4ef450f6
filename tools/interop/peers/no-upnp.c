/* Stands in for GUPnP IGD where libnice is loaded beside libsoup 2: see tools/setup. There is no UPnP then: libnice gets no
 * object to ask for port mappings, and goes on without. */
#include <stddef.h>
#include <stdlib.h>

void *gupnp_simple_igd_thread_new(void) { return NULL; }

unsigned long gupnp_simple_igd_get_type(void) { abort(); }
void gupnp_simple_igd_add_port(void) { abort(); }
void gupnp_simple_igd_remove_port_local(void) { abort(); }
