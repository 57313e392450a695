// SPDX-License-Identifier: Apache-2.0
#include "qmp/reply.h"

#include "schema/codec.h"

namespace colo::qmp {

Reply::Reply(std::weak_ptr<ReplyTarget> target, std::optional<schema::Value> id, bool in_band, Origin origin)
    : target_(std::move(target)), id_(std::move(id)), in_band_(in_band), origin_(std::move(origin))
{
}

Reply::Reply(Reply&& other) noexcept
    : target_(std::move(other.target_)),
      id_(std::move(other.id_)),
      in_band_(other.in_band_),
      origin_(std::move(other.origin_)),
      open_(other.open_)
{
    other.open_ = false;
}

Reply::~Reply()
{
    if (open_) fail("The command ended without an answer");
}

Fd Reply::take_fd()
{
    return origin_.fds.take_first();
}

void Reply::succeed(schema::Value result)
{
    deliver("return", std::move(result));
}

void Reply::fail(QmpError error)
{
    if (error.description.empty()) error.description = "The command failed";
    deliver("error",
            schema::Object{{"class", schema::to_string(error.error_class)}, {"desc", std::move(error.description)}});
}

void Reply::deliver(std::string_view member, schema::Value value)
{
    if (!open_) return;
    open_ = false;
    const auto target = target_.lock();
    if (!target) return;
    schema::Object message;
    message.append(std::string(member), std::move(value));
    if (id_) message.append("id", std::move(*id_));
    target->deliver(std::move(message), in_band_);
}

}  // namespace colo::qmp
