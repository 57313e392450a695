// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"
#include "schema/types.h"

#include <string>

namespace colo::qmp {

// What an error answer says. Most errors are GenericError: a core Error converts to it.
struct QmpError {
    schema::QapiErrorClass error_class = schema::QapiErrorClass::GenericError;
    std::string description;  // never empty on the wire

    QmpError(schema::QapiErrorClass which, std::string text) : error_class(which), description(std::move(text)) {}
    QmpError(std::string text) : description(std::move(text)) {}  // NOLINT(google-explicit-constructor)
    QmpError(const char* text) : description(text) {}             // NOLINT
    QmpError(const Error& error) : description(error.text) {}     // NOLINT
};

}  // namespace colo::qmp
