/* Stands in for NVIDIA's driver library: prints what it is asked, one line a call, and says yes. See test_driver.py. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SAY(...) (printf(__VA_ARGS__), printf("\n"), fflush(stdout), 0)

typedef void *handle;
static handle current;

static int init(unsigned flags) { return 0; }
static int version(int *v) { *v = 13000; return 0; }
static int device_get(int *device, int index) { *device = index; return SAY("device %d", index); }
static int retain(handle *context, int device) { *context = (handle)0x7777; return SAY("retain %d", device); }
static int get_current(handle *context) { *context = current; return 0; }
static int set_current(handle context) { current = context; return SAY("current %p", context); }
static int push(handle context) { current = context; return SAY("push %p", context); }
static int pop(handle *context) { *context = current; current = 0; return SAY("pop %p", *context); }
static int stream_create(handle *stream, unsigned flags) { *stream = (handle)0x55; return SAY("stream %u", flags); }
static int exchange(int *mode) { return SAY("mode %d", *mode); }
static int load(handle *module, const char *image) { *module = (handle)0x11; return SAY("load %.3s", image + 1); }
static int get_function(handle *function, handle module, const char *name) {
    *function = (handle)0x22;
    return SAY("function %p %s", module, name);
}
static int set_attribute(handle function, int attribute, int value) {
    return SAY("attribute %p %d %d", function, attribute, value);
}
static int launch(handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                  unsigned shared, handle stream, void **p, void **extra) {
    SAY("launch %p (%u %u %u) (%u %u %u) %u %p", function, gx, gy, gz, bx, by, bz, shared, stream);
    for (int i = 0; i < 4; i++) SAY("pointer %lx", *(unsigned long *)p[i]);
    for (int i = 4; i < 10; i++) SAY("integer %d", *(int *)p[i]);
    return SAY("floats %g %g", *(float *)p[10], *(float *)p[11]);
}

static const struct { const char *name; void *function; } table[] = {
    {"cuInit", init}, {"cuDriverGetVersion", version}, {"cuDeviceGet", device_get}, {"cuDevicePrimaryCtxRetain", retain},
    {"cuCtxGetCurrent", get_current}, {"cuCtxSetCurrent", set_current}, {"cuCtxPushCurrent", push},
    {"cuCtxPopCurrent", pop}, {"cuStreamCreate", stream_create}, {"cuThreadExchangeStreamCaptureMode", exchange},
    {"cuModuleLoadData", load}, {"cuModuleGetFunction", get_function}, {"cuFuncSetAttribute", set_attribute},
    {"cuLaunchKernel", launch},
};

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    *function = strcmp(name, "cuGetProcAddress") ? 0 : (void *)cuGetProcAddress_v2;
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(name, table[i].name)) *function = table[i].function;
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500; /* not found */
}
