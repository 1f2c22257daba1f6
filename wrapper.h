/* What fuse-sys binds: the low-level interface of libfuse 2 with LIBFUSE=2, of libfuse 3 with LIBFUSE=3. */

#if LIBFUSE == 2

#define FUSE_USE_VERSION 26
#include <fuse/fuse_lowlevel.h>

#elif LIBFUSE == 3

#define FUSE_USE_VERSION 35

/* Newer headers (3.17) make some of these names inline functions or macros over versioned symbols, older
   ones do not know them at all. The library is opened at run time, where only exported symbols with a
   shape that never changes can be used, so the headers' own declarations are moved out of the way and
   those symbols declared here. */
#define fuse_session_new header_fuse_session_new
#define fuse_session_custom_io header_fuse_session_custom_io
#define fuse_session_custom_io_317 header_fuse_session_custom_io_317
#define fuse_session_set_sync_init header_fuse_session_set_sync_init
#define fuse_loop_cfg_create header_fuse_loop_cfg_create
#define fuse_loop_cfg_destroy header_fuse_loop_cfg_destroy
#define fuse_loop_cfg_set_max_threads header_fuse_loop_cfg_set_max_threads
#define fuse_loop_cfg_set_idle_threads header_fuse_loop_cfg_set_idle_threads
#include <fuse3/fuse_lowlevel.h>
#undef fuse_session_new
#undef fuse_session_custom_io
#undef fuse_session_custom_io_317
#undef fuse_session_set_sync_init
#undef fuse_loop_cfg_create
#undef fuse_loop_cfg_destroy
#undef fuse_loop_cfg_set_max_threads
#undef fuse_loop_cfg_set_idle_threads
#undef fuse_session_loop_mt

/* 3.0 to now: FUSE_3.0 stays the default version of this symbol. */
struct fuse_session *fuse_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *op, size_t op_size,
				      void *userdata);

/* The members of struct fuse_custom_io that every version since 3.13 has. */
struct fuse_custom_io_base {
	ssize_t (*writev)(int fd, struct iovec *iov, int count, void *userdata);
	ssize_t (*read)(int fd, void *buf, size_t buf_len, void *userdata);
	ssize_t (*splice_receive)(int fdin, off_t *offin, int fdout, off_t *offout, size_t len, unsigned int flags,
				  void *userdata);
	ssize_t (*splice_send)(int fdin, off_t *offin, int fdout, off_t *offout, size_t len, unsigned int flags,
			       void *userdata);
};

/* 3.13 to 3.16. From 3.17 a plain look-up of this name finds a function of four arguments. */
int fuse_session_custom_io(struct fuse_session *se, const struct fuse_custom_io_base *io, int fd);

/* 3.17 and later. */
int fuse_session_custom_io_317(struct fuse_session *se, const struct fuse_custom_io_base *io, size_t op_size, int fd);

/* 3.12 and later, where the library makes the settings of its loop, and a plain look-up finds the loop that takes
   them. */
struct fuse_loop_settings;
struct fuse_loop_settings *fuse_loop_cfg_create(void);
void fuse_loop_cfg_destroy(struct fuse_loop_settings *settings);
void fuse_loop_cfg_set_max_threads(struct fuse_loop_settings *settings, unsigned int value);
void fuse_loop_cfg_set_idle_threads(struct fuse_loop_settings *settings, unsigned int value);
int fuse_session_loop_mt(struct fuse_session *se, struct fuse_loop_settings *settings);

/* 3.19 and later, where the library may otherwise answer INIT itself while it mounts. */
void fuse_session_set_sync_init(struct fuse_session *se, _Bool enable);

#else
#error "define LIBFUSE as 2 or 3"
#endif
