// SPDX-License-Identifier: Apache-2.0
#include "qemu/state_file.h"

#include "qemu/device_state.h"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>

namespace colo::qemu {
namespace {

constexpr std::size_t kClusterBits = 16, kCluster = std::size_t{1} << kClusterBits;
constexpr std::size_t kRefcountTable = 1, kRefcountBlock = 2, kActiveL1 = 3, kSnapshotTable = 4, kSnapshotL1 = 5, kL2 = 6,
                      kState = 7;
constexpr std::size_t kStateClusters = kMaxDeviceState / kCluster;
constexpr std::size_t kClusters = kState + kStateClusters;

class Image {
public:
    Image() : bytes_(kState * kCluster) {}
    // Appends big endian numbers from `at` on.
    Image& at(std::size_t offset)
    {
        position_ = offset;
        return *this;
    }
    Image& u16(std::uint64_t v) { return put(v, 2); }
    Image& u32(std::uint64_t v) { return put(v, 4); }
    Image& u64(std::uint64_t v) { return put(v, 8); }
    Image& text(std::string_view s)
    {
        for (const char c : s) bytes_[position_++] = static_cast<std::uint8_t>(c);
        return *this;
    }
    const Bytes& bytes() const { return bytes_; }

private:
    Image& put(std::uint64_t v, int size)
    {
        for (int shift = 8 * (size - 1); shift >= 0; shift -= 8)
            bytes_[position_++] = static_cast<std::uint8_t>(v >> shift);
        return *this;
    }
    Bytes bytes_;
    std::size_t position_ = 0;
};

Bytes make_image()
{
    constexpr std::uint64_t kDisk = kCluster;   // virtual size; VM state begins behind it, at L1 index 1
    constexpr std::uint64_t kL2Covers = kCluster / 8 * kCluster;
    static_assert(kDisk <= kL2Covers && kMaxDeviceState <= kL2Covers);
    Image image;
    image.at(0).text("QFI\xfb").u32(3);
    image.u64(0).u32(0);                                           // no backing file
    image.u32(kClusterBits).u64(kDisk).u32(0);                     // not encrypted
    image.u32(2).u64(kActiveL1 * kCluster);                        // L1 entries, L1 table
    image.u64(kRefcountTable * kCluster).u32(1);                   // refcount table, its clusters
    image.u32(1).u64(kSnapshotTable * kCluster);                   // snapshots
    image.u64(0).u64(0).u64(0).u32(4).u32(104);                    // features, 16-bit refcounts, header length
    image.at(kRefcountTable * kCluster).u64(kRefcountBlock * kCluster);
    image.at(kRefcountBlock * kCluster);
    for (std::size_t i = 0; i < kClusters; ++i) image.u16(i >= kL2 ? 2 : 1);
    for (const std::size_t l1 : {kActiveL1, kSnapshotL1}) image.at(l1 * kCluster).u64(0).u64(kL2 * kCluster);
    image.at(kSnapshotTable * kCluster);
    image.u64(kSnapshotL1 * kCluster).u32(2).u16(1).u16(1);        // L1 entries, lengths of id and name
    image.u32(0).u32(0).u64(0);                                    // date, VM clock
    image.u32(kMaxDeviceState).u32(16).u64(kMaxDeviceState).u64(kDisk).text("1").text("c");
    image.at(kL2 * kCluster);
    for (std::size_t i = 0; i < kStateClusters; ++i) image.u64((kState + i) * kCluster);
    return image.bytes();
}

Result<Fd> make_memfd(const char* name)
{
    Fd fd(::memfd_create(name, MFD_CLOEXEC));
    if (!fd) return errno_error("memfd_create", errno);
    return fd;
}

Result<void> write_all(int fd, ByteView data, std::size_t offset)
{
    while (!data.empty()) {
        const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
        if (n <= 0) return errno_error("write device state", n == 0 ? EIO : errno);
        offset += static_cast<std::size_t>(n);
        data = data.subspan(static_cast<std::size_t>(n));
    }
    return {};
}

Result<Bytes> read_whole(int fd)
{
    struct stat info {};
    if (::fstat(fd, &info) != 0) return errno_error("device state", errno);
    if (info.st_size < 0 || static_cast<std::uint64_t>(info.st_size) > kMaxDeviceState)
        return make_error(Errc::limit, fmt::format("device state of {} bytes", info.st_size));
    Bytes state(static_cast<std::size_t>(info.st_size));
    for (std::size_t done = 0; done < state.size();) {
        const ssize_t n = ::pread(fd, state.data() + done, state.size() - done, static_cast<off_t>(done));
        if (n <= 0) return errno_error("read device state", n == 0 ? EIO : errno);
        done += static_cast<std::size_t>(n);
    }
    return state;
}

}  // namespace

Result<StateFile> StateFile::create()
{
    auto fd = make_memfd("device-state");
    if (!fd) return fd.error();
    StateFile file;
    file.fd_ = std::move(*fd);
    return file;
}

Result<Bytes> StateFile::read() const
{
    return read_whole(fd());
}

Result<Bytes> read_state_from(const std::string& path)
{
    const Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!fd) return errno_error("open " + path, errno);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return errno_error(path, errno);
    if (!S_ISREG(info.st_mode)) return make_error(Errc::invalid, path + " is not a regular file");
    return read_whole(fd.get());
}

Result<void> StateFile::write(ByteView state)
{
    if (state.size() > kMaxDeviceState) return make_error(Errc::limit, fmt::format("device state of {} bytes", state.size()));
    if (::ftruncate(fd(), static_cast<off_t>(state.size())) != 0) return errno_error("size of device state", errno);
    return write_all(fd(), state, 0);
}

Result<SnapshotFile> SnapshotFile::create()
{
    auto fd = make_memfd("device-state-snapshot");
    if (!fd) return fd.error();
    SnapshotFile file;
    file.fd_ = std::move(*fd);
    if (::ftruncate(file.fd(), kClusters * kCluster) != 0) return errno_error("size of the snapshot file", errno);
    if (auto r = write_all(file.fd(), make_image(), 0); !r) return r.error();
    return file;
}

Result<void> SnapshotFile::write(ByteView state)
{
    if (state.size() > kMaxDeviceState) return make_error(Errc::limit, fmt::format("device state of {} bytes", state.size()));
    return write_all(fd(), state, kState * kCluster);
}

}  // namespace colo::qemu
