// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/progress.h"

#include "colo/ctl/report_text.h"
#include "schema/codec.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace colo::ctl {
namespace {

constexpr Duration kPlainInterval{5'000'000};
constexpr std::uint64_t kPlainStep = 10;  // percent
constexpr std::size_t kBarWidth = 24;
constexpr std::size_t kUsualColumns = 80;

std::uint64_t percent(const Transfer& transfer)
{
    if (transfer.total == 0) return 0;
    const double share = static_cast<double>(transfer.done) / static_cast<double>(transfer.total);
    return static_cast<std::uint64_t>(std::clamp(share, 0.0, 1.0) * 100);
}

std::size_t terminal_columns()
{
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsualColumns;
    return size.ws_col;
}

}  // namespace

std::string transfer_text(const Transfer& transfer)
{
    std::string text =
        std::to_string(percent(transfer)) + " %, " + show_bytes(transfer.done) + " of " + show_bytes(transfer.total);
    if (transfer.bytes_per_second >= 1)
        text += ", " + show_bytes(static_cast<std::uint64_t>(transfer.bytes_per_second)) + "/s";
    if (transfer.pass > 1) text += ", pass " + std::to_string(transfer.pass);
    const std::uint64_t left = transfer.total > transfer.done ? transfer.total - transfer.done : 0;
    if (transfer.bytes_per_second >= 1 && left > 0)
        text += ", about " +
                show_us(static_cast<std::uint64_t>(1e6 * static_cast<double>(left) / transfer.bytes_per_second)) +
                " left";
    return text;
}

std::string transfer_bar(const Transfer& transfer, std::size_t columns)
{
    const std::size_t filled = kBarWidth * percent(transfer) / 100;
    std::string line =
        "[" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "] " + transfer_text(transfer);
    if (line.size() > columns) line.resize(columns);
    return line;
}

ProgressView::ProgressView(bool silent) : silent_(silent), terminal_(::isatty(STDOUT_FILENO) != 0) {}

// The daemon's own rate if it tells one, else what was sent between two looks, smoothed.
Transfer ProgressView::measure(const schema::MigrationStats& ram)
{
    const Time time = now();
    if (measured_ && time > *measured_ && ram.transferred >= transferred_) {
        const double seconds = std::chrono::duration<double>(time - *measured_).count();
        const double rate = static_cast<double>(ram.transferred - transferred_) / seconds;
        rate_ = rate_ > 0 ? 0.7 * rate_ + 0.3 * rate : rate;
    }
    measured_ = time;
    transferred_ = ram.transferred;
    Transfer transfer;
    transfer.total = static_cast<std::uint64_t>(std::max<std::int64_t>(ram.total, 0));
    const std::int64_t remaining = std::clamp<std::int64_t>(ram.remaining, 0, std::max<std::int64_t>(ram.total, 0));
    transfer.done = transfer.total - static_cast<std::uint64_t>(remaining);
    transfer.bytes_per_second = ram.mbps > 0 ? ram.mbps * 1e6 / 8 : rate_;
    transfer.pass = ram.dirty_sync_count;
    return transfer;
}

void ProgressView::show(const schema::MigrationInfo& info, bool states)
{
    if (silent_) return;
    std::optional<Transfer> transfer;
    if (info.ram && info.status != schema::MigrationStatus::completed) transfer = measure(*info.ram);
    if (!terminal_) return plain(info, transfer, states);
    if (transfer)
        line(transfer_bar(*transfer, terminal_columns() - 1));
    else if (states && info.status)
        line(std::string(to_string(*info.status)));
}

void ProgressView::plain(const schema::MigrationInfo& info, const std::optional<Transfer>& transfer, bool states)
{
    const bool changed = status_ != info.status;
    status_ = info.status;
    if (!transfer) {
        if (changed && states && info.status) std::puts(std::string(to_string(*info.status)).c_str());
    } else {
        const std::uint64_t done = percent(*transfer);
        const bool due = !last_ || now() - *last_ >= kPlainInterval || done >= last_percent_ + kPlainStep;
        if (!changed && !due) return;
        last_ = now();
        last_percent_ = done;
        std::puts((std::string(to_string(info.status.value_or(schema::MigrationStatus::active))) + ": " +
                   transfer_text(*transfer))
                      .c_str());
    }
    std::fflush(stdout);
}

void ProgressView::line(const std::string& text)
{
    std::fputs(("\r" + text + "\033[K").c_str(), stdout);
    std::fflush(stdout);
    drawn_ = true;
}

void ProgressView::clear()
{
    if (!drawn_) return;
    std::fputs("\r\033[K", stdout);
    std::fflush(stdout);
    drawn_ = false;
}

}  // namespace colo::ctl
