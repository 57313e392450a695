// SPDX-License-Identifier: Apache-2.0
#include "xen/store.h"

#include <cerrno>
#include <cstdlib>

#include <stdbool.h>
#include <stdint.h>
extern "C" {
#include <xenstore.h>
}

namespace colo::xen {
namespace {

struct Free {
    void operator()(void* p) const { std::free(p); }
};

class Xenstore final : public Store {
public:
    explicit Xenstore(xs_handle* handle) : handle_(handle) {}
    ~Xenstore() override { xs_close(handle_); }

    Result<std::optional<std::string>> read(const std::string& path) override
    {
        unsigned length = 0;
        const std::unique_ptr<char, Free> value(static_cast<char*>(xs_read(handle_, XBT_NULL, path.c_str(), &length)));
        if (value) return std::optional(std::string(value.get(), length));
        if (errno == ENOENT) return std::optional<std::string>();
        return errno_error("xenstore: read " + path, errno);
    }

    Result<std::vector<std::string>> list(const std::string& path) override
    {
        unsigned count = 0;
        const std::unique_ptr<char*, Free> names(xs_directory(handle_, XBT_NULL, path.c_str(), &count));
        if (names) return std::vector<std::string>(names.get(), names.get() + count);
        if (errno == ENOENT) return std::vector<std::string>();
        return errno_error("xenstore: list " + path, errno);
    }

private:
    xs_handle* handle_;
};

}  // namespace

Result<std::unique_ptr<Store>> open_store()
{
    xs_handle* handle = xs_open(0);
    if (handle == nullptr) return hypercall_error("xenstore: connect (is this a dom0, and does xenstored run?)", errno);
    return std::unique_ptr<Store>(std::make_unique<Xenstore>(handle));
}

}  // namespace colo::xen
